# Every target works on a fresh machine with Go, make and git.
GO ?= go
BIN := bin/permitchain
# The race detector needs a C compiler; without one the tests run all the same, and say so.
RACE := $(shell command -v $${CC:-cc} >/dev/null 2>&1 && echo -race)

.PHONY: build run test e2e proof bench lint clean fuzz mutants

build: ## build the binary
	$(GO) build -trimpath -o $(BIN) .

run: build ## start the chain on the embedded paper exchange, whose market passes at three hundred times the pace
	./$(BIN) run --speed 300

test: ## vet and test everything
	@if [ -z "$(RACE)" ]; then echo "no C compiler: testing without -race (apt-get install gcc libc6-dev)"; fi
	$(GO) vet ./...
	$(GO) test $(RACE) -parallel 8 ./...

e2e: build ## prove the whole of it: an exchange and a chain, two processes, from denied drift to a booked fill
	PERMITCHAIN=$(BIN) .ci/e2e.sh

proof: build ## run the full figures of every drill, about an hour, and write them to proof.json
	.ci/proof.sh

bench: ## measure, each thing beside its floor
	$(GO) test -run '^$$' -bench . -benchmem ./...

fuzz: ## run every fuzz target, each for FUZZTIME (30s)
	FUZZTIME=$(or $(FUZZTIME),30s) .ci/fuzz.sh

mutants: ## plant every bug of testdata/mutants in a copy; each must be found. MUTANTS=A, B, chain, unit or a number selects
	.ci/mutants.sh

lint: ## golangci-lint, from a module file of its own
	$(GO) tool -modfile=golangci.mod golangci-lint run

clean: ## remove what was built; state stays
	rm -rf bin
