package terminal

import (
	"context"
	"strings"

	"permitchain/ledger"
	"permitchain/stages/operator"
)

// Commands are the part of the command line that talks to a chain, or to its file. Kong reads
// the grammar from the tags, and hands each command the terminal it runs on.
type Commands struct {
	Status    statusCmd    `cmd:"" group:"look" help:"How things stand: run state, exchange and ledger, plans."`
	Why       whyCmd       `cmd:"" group:"look" help:"Why a plan ended as it did, or what keeps a symbol from being closed, and what to do."`
	Limits    limitsCmd    `cmd:"" group:"look" help:"What is used of each limit, and when room comes back."`
	Positions positionsCmd `cmd:"" group:"look" help:"Positions in full: exchange, ledger, epoch, tranches, stop."`
	Orders    struct {
		Ls     ordersCmd `cmd:"" default:"withargs" help:"Orders of late, the newest first."`
		Settle settleCmd `cmd:"" help:"Say what became of an order that stays unknown, or was placed and is not known to the exchange any more; it is looked up once more first."`
	} `cmd:"" group:"both" help:"Orders that were promised, and what became of them."`
	Plans struct {
		Ls     plansCmd  `cmd:"" default:"withargs" help:"Plans, the newest first."`
		Show   planCmd   `cmd:"" help:"One plan in full: verdicts, numbers, orders."`
		Submit submitCmd `cmd:"" help:"Propose what a file says, and wait for what becomes of it."`
	} `cmd:"" group:"both" help:"Plans, and proposing one."`
	Ledger struct {
		Show    ledgerCmd  `cmd:"" default:"withargs" help:"What we believe we hold."`
		History historyCmd `cmd:"" help:"The entries that led to it."`
		Verify  verifyCmd  `cmd:"" help:"Check the journal's chain, its fold and every derived entry."`
		Sync    syncCmd    `cmd:"" help:"Make the ledger take the exchange's amount; clears the holds that this answers."`
		Backup  backupCmd  `cmd:"" help:"Copy the ledger, also while the chain runs."`
		Export  exportCmd  `cmd:"" help:"Write the journal as JSON lines."`
	} `cmd:"" group:"both" help:"The ledger and its journal."`
	Kill   killCmd   `cmd:"" group:"act" help:"Refuse everything from now on, also while no chain runs. Only rearm ends it."`
	Disarm disarmCmd `cmd:"" group:"act" help:"Decide and record, and send nothing. Also while no chain runs."`
	Rearm  rearmCmd  `cmd:"" group:"act" help:"Leave killed, disarmed or protective_only."`
	Hold   struct {
		Ls    holdsCmd     `cmd:"" default:"withargs" help:"What is on hold, why, and what clears it."`
		Set   holdSetCmd   `cmd:"" help:"Let nothing be sent for a symbol. Also while no chain runs."`
		Clear holdClearCmd `cmd:"" help:"Take the operator's hold off. Also while no chain runs."`
	} `cmd:"" group:"both" help:"Stops on single symbols."`
	Flatten flattenCmd `cmd:"" group:"act" help:"Close everything held, or one symbol, in every run state."`
	Paper   struct {
		Trade tradeCmd `cmd:"" help:"Trade as somebody else would: permitchain paper trade BTCUSDT -0.01"`
	} `cmd:"" group:"both" help:"The embedded exchange of mode paper."`
}

type (
	statusCmd struct {
		Check bool `help:"Exit with 3 when anything is wrong."`
	}
	whyCmd struct {
		Subject string `arg:"" optional:"" name:"plan|symbol" help:"A plan's id, or its first digits, or a symbol; nothing: every symbol."`
	}
	limitsCmd    struct{}
	positionsCmd struct{}
	ordersCmd    struct {
		Limit int `short:"n" default:"20" help:"How many."`
	}
	settleCmd struct {
		ID        string `arg:"" help:"The order's client id, as orders ls shows it."`
		OrderID   string `required:"" xor:"evidence" placeholder:"N" help:"It is this order of the exchange's; of an order that was placed, its own."`
		NotPlaced bool   `required:"" xor:"evidence" help:"It was never placed."`
		reasoned
	}
	plansCmd struct {
		Symbol  string `help:"Only this symbol's."`
		Outcome string `help:"Only with this outcome: executed, partial, denied, would_execute, failed, unknown, pending, none."`
		Limit   int    `short:"n" default:"20" help:"How many."`
	}
	planCmd struct {
		ID string `arg:"" help:"The plan's id, or its first digits."`
	}
	submitCmd struct {
		File   string `arg:"" help:"A file with one JSON object, or one a line; - is standard input."`
		NoWait bool   `help:"Return after planning: do not wait for the outcome."`
	}
	ledgerCmd  struct{}
	historyCmd struct {
		Symbol string `arg:"" optional:"" help:"Only this symbol's."`
		Limit  int    `short:"n" default:"50" help:"How many."`
	}
	verifyCmd struct {
		File string `placeholder:"PATH" help:"This file instead of the configuration's ledger."`
	}
	syncCmd struct {
		Symbol string `arg:"" help:"The position's symbol."`
		sided
		reasoned
	}
	backupCmd struct {
		File string `arg:"" help:"Where to; nothing is overwritten."`
	}
	exportCmd struct{}
	killCmd   struct{ reasoned }
	disarmCmd struct{ reasoned }
	rearmCmd  struct {
		To string `required:"" enum:"armed,protective_only,disarmed" help:"armed, protective_only or disarmed."`
		reasoned
	}
	holdsCmd   struct{}
	holdSetCmd struct {
		Symbol string `arg:"" help:"The symbol."`
		sided
		reasoned
	}
	holdClearCmd holdSetCmd
	flattenCmd   struct {
		Symbol string `arg:"" optional:"" help:"Only this symbol."`
		Force  bool   `help:"Skip the checks that compare exchange and ledger, and holds. An order in flight still stops it."`
		reasoned
	}
	tradeCmd struct {
		Symbol string `arg:"" help:"The symbol."`
		Qty    string `arg:"" help:"How much: negative sells."`
		sided
	}
	reasoned struct {
		Reason string `required:"" placeholder:"TEXT" help:"Why; it is journalled."`
	}
	sided struct {
		Side string `default:"" enum:",BOTH,LONG,SHORT" help:"LONG or SHORT, in hedge mode."`
	}
)

func (c statusCmd) Run(ctx context.Context, t *Terminal) error  { return t.Status(ctx, c.Check) }
func (c whyCmd) Run(ctx context.Context, t *Terminal) error     { return t.Why(ctx, c.Subject) }
func (limitsCmd) Run(ctx context.Context, t *Terminal) error    { return t.Limits(ctx) }
func (positionsCmd) Run(ctx context.Context, t *Terminal) error { return t.Positions(ctx) }
func (c ordersCmd) Run(ctx context.Context, t *Terminal) error  { return t.Orders(ctx, c.Limit) }
func (c plansCmd) Run(ctx context.Context, t *Terminal) error {
	return t.Plans(ctx, c.Symbol, c.Outcome, c.Limit)
}
func (c planCmd) Run(ctx context.Context, t *Terminal) error { return t.Plan(ctx, c.ID) }
func (c submitCmd) Run(ctx context.Context, t *Terminal) error {
	return t.Submit(ctx, c.File, !c.NoWait)
}
func (ledgerCmd) Run(ctx context.Context, t *Terminal) error { return t.Ledger(ctx) }
func (c historyCmd) Run(ctx context.Context, t *Terminal) error {
	return t.History(ctx, c.Symbol, c.Limit)
}
func (c verifyCmd) Run(ctx context.Context, t *Terminal) error { return t.Verify(ctx, c.File) }
func (c backupCmd) Run(ctx context.Context, t *Terminal) error { return t.Backup(ctx, c.File) }
func (exportCmd) Run(ctx context.Context, t *Terminal) error   { return t.Export(ctx) }
func (holdsCmd) Run(ctx context.Context, t *Terminal) error    { return t.Holds(ctx) }

func (c killCmd) Run(ctx context.Context, t *Terminal) error {
	return t.Move(ctx, "kill", operator.Order{Reason: c.Reason})
}

func (c disarmCmd) Run(ctx context.Context, t *Terminal) error {
	return t.Move(ctx, "disarm", operator.Order{Reason: c.Reason})
}

func (c rearmCmd) Run(ctx context.Context, t *Terminal) error {
	return t.Move(ctx, "rearm", operator.Order{To: c.To, Reason: c.Reason})
}

func (c holdSetCmd) Run(ctx context.Context, t *Terminal) error {
	return t.Hold(ctx, operator.Order{Op: "set", Symbol: strings.ToUpper(c.Symbol), Side: ledger.Side(c.Side), Reason: c.Reason})
}

func (c holdClearCmd) Run(ctx context.Context, t *Terminal) error {
	return t.Hold(ctx, operator.Order{Op: "clear", Symbol: strings.ToUpper(c.Symbol), Side: ledger.Side(c.Side), Reason: c.Reason})
}

func (c syncCmd) Run(ctx context.Context, t *Terminal) error {
	return t.Sync(ctx, operator.Order{Symbol: strings.ToUpper(c.Symbol), Side: ledger.Side(c.Side), Reason: c.Reason})
}

func (c settleCmd) Run(ctx context.Context, t *Terminal) error {
	return t.Settle(ctx, operator.Order{ID: c.ID, OrderID: c.OrderID, NotPlaced: c.NotPlaced, Reason: c.Reason})
}

func (c flattenCmd) Run(ctx context.Context, t *Terminal) error {
	return t.Flatten(ctx, operator.Order{Symbol: strings.ToUpper(c.Symbol), Force: c.Force, Reason: c.Reason})
}

func (c tradeCmd) Run(ctx context.Context, t *Terminal) error {
	return t.Trade(ctx, operator.Order{Symbol: strings.ToUpper(c.Symbol), Side: ledger.Side(c.Side), Qty: c.Qty})
}
