package stages

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"permitchain/exchange"
	"permitchain/ledger"
	"permitchain/pipeline"
)

func TestAllowances(t *testing.T) {
	cases := []struct {
		config   string
		action   ledger.Action
		governor ledger.Reason
		qty      string // what is taken off, or would be
	}{
		{"", ledger.Partial25, ledger.WithinLimits, "0.011"},
		{"", ledger.FullClose, ledger.WithinProtectiveBudget, "0.046"},
		{"governor: {daily_notional: '1000', on_daily_limit: trim}", ledger.Partial75, ledger.TrimmedToDailyLimit, "0.011"},
		{"governor: {auto_approve: [paper], daily_notional: '5'}", ledger.Partial75, ledger.PaperAutoApprove, "0.034"},
		{"mode: testnet\ngovernor: {daily_notional: '5'}", ledger.Partial75, ledger.TestnetAutoApprove, "0.034"},
		{"mode: dry_run", ledger.Partial75, ledger.DryRunAutoApprove, "0"},
	}
	for _, c := range cases {
		t.Run(string(c.governor), func(t *testing.T) {
			inBubble(t, c.config, func(r *rig) {
				r.wait(settled)
				plan := r.decide(proposal(c.action))
				step := plan.Steps[0]
				if step.Governor.Reason != c.governor || step.Position.Reason != ledger.PositionAgrees || step.Filled.String() != c.qty {
					r.t.Fatalf("%s, %s, filled %s, outcome %s", step.Governor.Reason, step.Position.Reason, step.Filled, plan.Fate())
				}
				if auto := c.governor == ledger.TestnetAutoApprove || c.governor == ledger.PaperAutoApprove; auto && step.Governor.Shadow != ledger.DailyLimit {
					r.t.Errorf("the record does not say what the other gates would have said: %q", step.Governor.Shadow)
				}
				r.view(func(s *ledger.State) {
					if u := s.Usage["BTCUSDT"]; c.governor == ledger.DryRunAutoApprove && u != nil && len(u.Uses) > 0 {
						r.t.Errorf("a plan that only would execute used %v", u.Uses)
					}
				})
			})
		})
	}
}

// TestAThousandAtOnce presents one proposal a thousand times at once.
func TestAThousandAtOnce(t *testing.T) {
	inBubble(t, "", func(r *rig) {
		r.wait(settled)
		p := proposal(ledger.Partial25)
		var group sync.WaitGroup
		decisions := make(chan ledger.Receipt, 1000)
		for range 1000 {
			group.Go(func() { decisions <- r.propose(p) })
		}
		group.Wait()
		close(decisions)
		execute := 0
		for d := range decisions {
			if d.Decision == ledger.Execute {
				execute++
			} else if d.Reason != ledger.DuplicatePlan {
				r.t.Fatalf("%+v", d)
			}
		}
		r.want(r.outcome(p.ID()), ledger.Executed, "", "")
		if execute != 1 || len(r.hostile.orders()) != 1 {
			r.t.Fatalf("%d planned, %d sent", execute, len(r.hostile.orders()))
		}
		r.view(func(s *ledger.State) {
			if s.Control.Counts.Duplicates != 999 {
				r.t.Errorf("%d duplicates", s.Control.Counts.Duplicates)
			}
		})
	})
}

// TestTwoPlansRaceForTheLastSlot gives two symbols' plans one slot of a portfolio limit, at the same instant.
func TestTwoPlansRaceForTheLastSlot(t *testing.T) {
	inBubble(t, "governor: {portfolio_per_hour: 1}\npaper: {positions: {BTCUSDT: '0.046', ETHUSDT: '1'}}", func(r *rig) {
		r.wait(settled)
		plans := []ledger.Proposal{proposal(ledger.Partial25), proposal(ledger.Partial25, of("ETHUSDT"))}
		var group sync.WaitGroup
		for _, p := range plans {
			group.Go(func() { r.propose(p) })
		}
		group.Wait()
		outcomes := map[ledger.Outcome]int{}
		for _, p := range plans {
			outcomes[r.outcome(p.ID()).Outcome]++
		}
		if outcomes[ledger.Executed] != 1 || outcomes[ledger.Denied] != 1 {
			r.t.Fatalf("outcomes %v", outcomes)
		}
	})
}

// TestADenialBurnsNothingElse: after a denial by reconciliation the governor's budget is whole, and the other way round.
func TestADenialBurnsNothingElse(t *testing.T) {
	inBubble(t, "governor: {max_per_hour: 1, max_per_5min: 1}", func(r *rig) {
		r.wait(settled)
		k := ledger.Key{Symbol: "BTCUSDT", Side: ledger.Both}
		r.put(k, ledger.HoldOperator)
		for range 3 {
			r.want(r.decide(proposal(ledger.Partial25)), denied, atPosition, ledger.HoldActive)
			r.wait(time.Second)
		}
		if _, err := r.store.Decide(r.t.Context(), func(*ledger.State, time.Time) []ledger.Event {
			return []ledger.Event{&ledger.HoldCleared{Key: k, Reason: ledger.HoldOperator, Owner: "test"}}
		}); err != nil {
			r.t.Fatal(err)
		}
		r.executed(proposal(ledger.Partial25)) // Three denials left the one slot, the tranche and the permits whole.
		r.wait(20 * time.Second)
		plan := r.decide(proposal(ledger.Partial50))
		r.want(plan, denied, atGovernor, ledger.HourlyLimit)
		if plan.Steps[0].Position == nil || plan.Steps[0].Position.Ruling != ledger.Allow {
			r.t.Errorf("the governor's denial kept the position permit away: %+v", plan.Steps[0].Position)
		}
		r.view(func(s *ledger.State) {
			if pos := s.Positions[k]; len(pos.Tranches) != 1 {
				r.t.Errorf("tranches %v", pos.Tranches)
			}
		})
	})
}

func TestFlattenInEveryRunState(t *testing.T) {
	for _, state := range []ledger.RunState{ledger.Armed, ledger.ProtectiveOnly, ledger.Disarmed, ledger.Killed} {
		t.Run(string(state), func(t *testing.T) {
			inBubble(t, "paper: {positions: {BTCUSDT: '0.046', ETHUSDT: '-1'}}", func(r *rig) {
				r.wait(settled)
				if state != ledger.Armed {
					r.runState(state)
				}
				f := pipeline.Ask[ledger.FlattenOrder, []ledger.Receipt](ledger.FlattenOrder{Who: "test", Why: "storm"})
				r.flattens <- f
				receipts := <-f.Reply
				if len(receipts) != 2 {
					r.t.Fatalf("receipts %+v", receipts)
				}
				for _, receipt := range receipts {
					plan := r.outcome(receipt.ID)
					r.want(plan, ledger.Executed, "", "")
					if plan.Steps[0].Governor.Reason != ledger.OperatorFlatten {
						r.t.Errorf("governed by %s", plan.Steps[0].Governor.Reason)
					}
				}
				r.wait(settled)
				r.agree()
				r.view(func(s *ledger.State) {
					for k, p := range s.Positions {
						if !p.Amount.IsZero() {
							r.t.Errorf("%s still holds %s", k, p.Amount)
						}
					}
				})
			})
		})
	}
}

// TestForceSkipsTheComparison: with --force a mismatch and a hold do not stop the operator.
func TestForceSkipsTheComparison(t *testing.T) {
	inBubble(t, "paper: {ledger: {BTCUSDT: '0.002'}}", func(r *rig) {
		r.wait(settled)
		for _, force := range []bool{false, true} {
			f := pipeline.Ask[ledger.FlattenOrder, []ledger.Receipt](ledger.FlattenOrder{Force: force, Who: "test", Why: "storm"})
			r.flattens <- f
			plan := r.outcome((<-f.Reply)[0].ID)
			if force {
				r.want(plan, ledger.Executed, "", "")
			} else {
				r.want(plan, denied, atPosition, ledger.QtyMismatch)
			}
			r.wait(time.Second)
		}
		r.wait(settled)
		r.agree() // What the ledger had wrong was written off as a residual.
	})
}

func TestAutoDisarm(t *testing.T) {
	t.Run("attempts that fail", func(t *testing.T) {
		inBubble(t, wide+"apply: {attempts: 1}", func(r *rig) {
			r.wait(settled)
			for i := range 5 {
				r.want(r.decide(proposal(ledger.Partial25)), ledger.Failed, atExecution, ledger.AttemptsExhausted)
				r.wait(20 * time.Second)
				r.view(func(s *ledger.State) {
					want := ledger.Armed
					if i == 4 {
						want = ledger.ProtectiveOnly
					}
					if s.Control.RunState != want {
						r.t.Errorf("after %d failures %s", i+1, s.Control.RunState)
					}
				})
			}
			r.want(r.decide(proposal(ledger.Partial25)), denied, atGovernor, ledger.OnlyProtective)
			r.runState(ledger.Armed)
			r.wait(5 * time.Second)
			r.view(func(s *ledger.State) {
				if s.Control.RunState != ledger.Armed {
					r.t.Errorf("failures from before the operator's word disarmed again")
				}
			})
		}, func(h *hostile) {
			h.place = func(exchange.Order, func() exchange.Answer) exchange.Answer {
				return exchange.Answer{Outcome: exchange.NotPlaced, Code: -4131}
			}
		})
	})
	t.Run("orders of our form that are not ours", func(t *testing.T) {
		inBubble(t, "", func(r *rig) {
			r.wait(settled)
			a := r.paper.Place(r.t.Context(), exchange.Order{
				ClientOrderID: "pc-0123456789abcdef-1-1", Key: ledger.Key{Symbol: "BTCUSDT", Side: ledger.Both}, Direction: ledger.Sell,
				Qty: ledger.MustQty("0.01"), SendBefore: time.Now().Add(time.Second),
			})
			if a.Outcome != exchange.Placed {
				r.t.Fatalf("%+v", a)
			}
			r.wait(settled)
			r.view(func(s *ledger.State) {
				if holds := s.HoldsOn(ledger.Key{Symbol: "BTCUSDT", Side: ledger.Both}); !holds.Has(ledger.HoldForeignInstance) {
					r.t.Errorf("holds %v", holds)
				}
				if s.Control.RunState != ledger.ProtectiveOnly {
					r.t.Errorf("run state %s", s.Control.RunState)
				}
			})
		})
	})
}

// TestUnfilled: the rest of a protective close is sent again, sized anew; that of another is not.
func TestUnfilled(t *testing.T) {
	half := func(h *hostile) {
		h.place = func(o exchange.Order, real func() exchange.Answer) exchange.Answer {
			if len(h.orders()) > 1 {
				return real()
			}
			o.Qty = ledger.MustQty("0.01") // The exchange fills a part, then the order expires.
			a := h.Exchange.Place(context.Background(), o)
			a.Status = "EXPIRED"
			return a
		}
	}
	t.Run("protective", func(t *testing.T) {
		inBubble(t, "", func(r *rig) {
			r.wait(settled)
			plan := r.decide(proposal(ledger.FullClose))
			r.want(plan, ledger.Executed, "", "")
			if len(plan.Orders()) != 2 || r.hostile.orders()[1].Qty.String() != "0.036" {
				r.t.Fatalf("sent %+v", r.hostile.orders())
			}
			r.wait(settled)
			r.agree()
		}, half)
	})
	t.Run("not protective", func(t *testing.T) {
		inBubble(t, "", func(r *rig) {
			r.wait(settled)
			plan := r.decide(proposal(ledger.Partial75))
			r.want(plan, ledger.PartlyExecuted, atExecution, ledger.OrderUnfilled)
			r.wait(settled)
			r.agree()
			r.view(func(s *ledger.State) {
				if u := s.Usage["BTCUSDT"].Uses; len(u) != 1 || u[0].Notional.String() != plan.Steps[0].Quote.String() {
					r.t.Errorf("usage %v was not corrected to what filled, %s", u, plan.Steps[0].Quote)
				}
				if tr := s.Positions[plan.Key()].Tranches[ledger.Partial75]; !tr.Done {
					r.t.Error("a fill did not complete the tranche")
				}
			})
		}, half)
	})
	t.Run("nothing filled frees the tranche and the budget", func(t *testing.T) {
		inBubble(t, "", func(r *rig) {
			r.wait(settled)
			plan := r.decide(proposal(ledger.Partial75))
			r.want(plan, ledger.Failed, atExecution, ledger.AttemptsExhausted)
			r.view(func(s *ledger.State) {
				if u := s.Usage["BTCUSDT"].Uses; len(u) != 0 || len(s.Positions[plan.Key()].Tranches) != 0 {
					r.t.Errorf("usage %v, tranches %v", u, s.Positions[plan.Key()].Tranches)
				}
			})
		}, func(h *hostile) {
			h.place = func(exchange.Order, func() exchange.Answer) exchange.Answer {
				return exchange.Answer{Outcome: exchange.NotPlaced, Code: -4131}
			}
		})
	})
}

// TestAboveTheMarketMaximum: one plan becomes several orders that draw on one grant.
func TestAboveTheMarketMaximum(t *testing.T) {
	inBubble(t, wide+"paper: {positions: {BTCUSDT: '300'}}", func(r *rig) {
		r.wait(settled)
		plan := r.decide(proposal(ledger.FullClose))
		r.want(plan, ledger.Executed, "", "")
		if filled, _ := plan.Filled(); len(plan.Orders()) != 3 || filled.String() != "300" {
			r.t.Fatalf("%v filled %s", plan.Orders(), filled)
		}
		r.wait(settled)
		r.agree()
	})
}

// TestUnknown: an order whose answer is lost is looked up, never sent again.
func TestUnknown(t *testing.T) {
	for _, landed := range []bool{true, false} {
		t.Run(fmt.Sprintf("landed=%v", landed), func(t *testing.T) {
			inBubble(t, "", func(r *rig) {
				r.wait(settled)
				id := r.propose(proposal(ledger.Partial25)).ID
				r.wait(500 * time.Millisecond)
				if !landed {
					r.view(func(s *ledger.State) {
						if p := s.Plans[id]; p.Outcome != ledger.OutcomeUnknown {
							r.t.Errorf("outcome %s", p.Outcome)
						}
					})
					blocked := r.decide(proposal(ledger.FullClose))
					r.want(blocked, denied, atPosition, ledger.CooldownInFlight)
				}
				plan := r.outcome(id)
				r.want(plan, ledger.Executed, "", "")
				orders := len(plan.Orders())
				if landed && orders != 1 || !landed && orders != 2 {
					r.t.Errorf("orders %v", plan.Orders())
				}
				r.wait(settled)
				r.agree()
				if pos := held(r, plan.Key()); pos.String() != "0.035" {
					r.t.Errorf("holds %s", pos)
				}
			}, func(h *hostile) {
				h.place = func(_ exchange.Order, real func() exchange.Answer) exchange.Answer {
					if len(h.orders()) > 1 {
						return real()
					}
					if landed {
						real()
					}
					return exchange.Answer{Outcome: exchange.Unknown, Message: "timeout"}
				}
			})
		})
	}
}

func held(r *rig, k ledger.Key) ledger.Qty {
	snap, err := r.paper.Snapshot(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return snap.Of(k).Amount
}

// TestStops: a stop stands, is replaced by a tighter one, follows the amount, and goes with the position.
func TestStops(t *testing.T) {
	standing := func(r *rig) (ids []string) {
		r.view(func(s *ledger.State) {
			for id, i := range s.Intents {
				if i.State == ledger.Standing {
					ids = append(ids, id+" "+i.Qty.String()+" at "+i.Trigger.String())
				}
			}
		})
		return ids
	}
	one := func(r *rig, want string) {
		r.t.Helper()
		r.wait(settled)
		if ids := standing(r); len(ids) != 1 || ids[0] != want {
			r.t.Fatalf("standing %v, wanted %s", ids, want)
		}
	}
	inBubble(t, wide, func(r *rig) {
		r.wait(settled)
		first := r.decide(proposal(ledger.UpdateSL, withSL("50000")))
		one(r, fmt.Sprintf("pc-%s-s1-1 0.046 at 50000", first.ID))
		second := r.decide(proposal(ledger.UpdateSL, withSL("51000")))
		one(r, fmt.Sprintf("pc-%s-s1-1 0.046 at 51000", second.ID))
		r.executed(proposal(ledger.Partial25))
		one(r, fmt.Sprintf("pc-%s-s1-2 0.035 at 51000", second.ID))
		r.wait(settled)
		both := r.decide(proposal(ledger.Partial50, withSL("52000")))
		r.want(both, ledger.Executed, "", "")
		one(r, fmt.Sprintf("pc-%s-s2-1 0.018 at 52000", both.ID))
		r.wait(time.Minute)
		r.executed(proposal(ledger.FullClose))
		r.wait(settled)
		if ids := standing(r); len(ids) != 0 {
			r.t.Fatalf("flat, and %v stands", ids)
		}
		r.agree()
	})
	t.Run("a stop that can't be placed closes where configured", func(t *testing.T) {
		inBubble(t, wide+"apply: {on_stop_failure: close}", func(r *rig) {
			r.wait(settled)
			r.want(r.decide(proposal(ledger.UpdateSL, withSL("50000"))), ledger.Failed, atExecution, ledger.OrderNotPlaced)
			r.wait(settled)
			if q := held(r, ledger.Key{Symbol: "BTCUSDT", Side: ledger.Both}); !q.IsZero() {
				r.t.Errorf("still holds %s", q)
			}
			r.agree()
		}, func(h *hostile) {
			h.place = func(o exchange.Order, real func() exchange.Answer) exchange.Answer {
				if !o.Trigger.IsZero() {
					return exchange.Answer{Outcome: exchange.NotPlaced, Code: -2021, Message: "Order would immediately trigger."}
				}
				return real()
			}
		})
	})
}

// TestRestart: what a process leaves is found by the next one.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, dir, "governor: {max_per_hour: 1, max_per_5min: 1}")
		r.wait(settled)
		r.executed(proposal(ledger.Partial25))
		r.put(ledger.Key{Symbol: "ETHUSDT", Side: ledger.AnySide}, ledger.HoldOperator)
		p := proposal(ledger.Partial50)
		r.want(r.decide(p), denied, atGovernor, ledger.HourlyLimit)
		r.runState(ledger.ProtectiveOnly)
		r.stop()

		r = start(t, dir, "governor: {max_per_hour: 1, max_per_5min: 1}")
		r.wait(settled)
		if again := r.propose(p); again.Reason != ledger.DuplicatePlan {
			r.t.Errorf("the dedupe entry is gone: %+v", again)
		}
		r.want(r.decide(proposal(ledger.Partial50)), denied, atGovernor, ledger.OnlyProtective)
		r.view(func(s *ledger.State) {
			if len(s.Usage["BTCUSDT"].Uses) != 1 || !s.HoldsOn(ledger.Key{Symbol: "ETHUSDT", Side: ledger.Both}).Has(ledger.HoldOperator) || s.Control.Instance != 2 {
				r.t.Errorf("usage %v, holds %v, instance %d", s.Usage["BTCUSDT"], s.Holds, s.Control.Instance)
			}
		})
		r.agree()
		r.stop()
	})
}

// TestHolds makes each of reconciliation's holds appear by its own cause, and go by what answers it.
func TestHolds(t *testing.T) {
	btc := ledger.Key{Symbol: "BTCUSDT", Side: ledger.Both}
	has := func(r *rig, reason ledger.Reason, want bool) {
		r.t.Helper()
		r.view(func(s *ledger.State) {
			if s.HoldsOn(btc).Has(reason) != want {
				r.t.Errorf("hold %s is %v, wanted %v: %v", reason, !want, want, s.HoldsOn(btc))
			}
		})
	}
	dead := func(h *hostile) { h.noSnapshots.Store(true) }
	t.Run("missing_exchange", func(t *testing.T) {
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			r := start(t, dir, "")
			r.wait(settled)
			r.stop()
			r = start(t, dir, "", dead)
			r.wait(settled)
			has(r, ledger.HoldMissingExchange, true)
			r.hostile.noSnapshots.Store(false)
			r.wait(settled)
			has(r, ledger.HoldMissingExchange, false)
		})
	})
	t.Run("stale_exchange", func(t *testing.T) {
		inBubble(t, "", func(r *rig) {
			r.wait(settled)
			r.hostile.noSnapshots.Store(true)
			r.wait(settled)
			has(r, ledger.HoldStaleExchange, true)
			r.hostile.noSnapshots.Store(false)
			r.wait(settled)
			has(r, ledger.HoldStaleExchange, false)
		})
	})
	t.Run("no_ledger", func(t *testing.T) {
		inBubble(t, "reconcile: {initial: hold}", func(r *rig) {
			r.wait(settled)
			has(r, ledger.HoldNoLedger, true)
			r.want(r.decide(proposal(ledger.Partial25)), denied, atPosition, ledger.QtyMismatch)
		})
	})
	t.Run("external_trades", func(t *testing.T) {
		inBubble(t, "reconcile: {external_trades: hold}", func(r *rig) {
			r.wait(settled)
			r.trade("BTCUSDT", "0.01")
			has(r, ledger.HoldExternalTrades, true)
		})
	})
	t.Run("external trades are adopted", func(t *testing.T) {
		inBubble(t, "", func(r *rig) {
			r.wait(settled)
			r.trade("BTCUSDT", "0.01")
			r.agree()
			r.view(func(s *ledger.State) {
				if len(s.Holds) != 0 || s.Positions[btc].Amount.String() != "0.056" {
					r.t.Errorf("holds %v, position %+v", s.Holds, s.Positions[btc])
				}
			})
		})
	})
	t.Run("side_mismatch", func(t *testing.T) {
		inBubble(t, "", func(r *rig) {
			r.wait(settled)
			r.trade("BTCUSDT", "-0.1")
			has(r, ledger.HoldSideMismatch, true)
			r.trade("BTCUSDT", "0.054") // Flat, which answers it.
			has(r, ledger.HoldSideMismatch, false)
			r.agree()
		})
	})
	t.Run("position_moving", func(t *testing.T) {
		moving := func(h *hostile) { h.Exchange = &mover{Exchange: h.Exchange} }
		inBubble(t, "", func(r *rig) {
			r.wait(6 * time.Second)
			has(r, ledger.HoldPositionMoving, true)
			r.wait(settled)
			has(r, ledger.HoldPositionMoving, false)
			r.agree()
		}, moving)
	})
}

// TestHedgeMode: both sides of a symbol are positions of their own, closed by position side.
func TestHedgeMode(t *testing.T) {
	inBubble(t, wide+"paper: {hedge: true, positions: {'BTCUSDT:LONG': '0.046', 'BTCUSDT:SHORT': '-0.02'}}", func(r *rig) {
		r.wait(settled)
		on := func(s ledger.Side) func(*ledger.Proposal) {
			return func(p *ledger.Proposal) { p.Side = s }
		}
		r.executed(proposal(ledger.Partial50, on(ledger.Long)))
		r.executed(proposal(ledger.Partial25, on(ledger.Short)))
		r.want(r.decide(proposal(ledger.Partial25)), denied, atPosition, ledger.NoPosition) // There is no BOTH.
		r.wait(settled)
		r.agree()
		for side, want := range map[ledger.Side]string{ledger.Long: "0.023", ledger.Short: "-0.015"} {
			if q := held(r, ledger.Key{Symbol: "BTCUSDT", Side: side}); q.String() != want {
				r.t.Errorf("%s is %s, wanted %s", side, q, want)
			}
		}
		r.view(func(s *ledger.State) {
			if len(s.Holds) != 0 || s.Positions[ledger.Key{Symbol: "BTCUSDT", Side: ledger.Both}] != nil {
				r.t.Errorf("holds %v, positions %v", s.Holds, s.Keys())
			}
		})
	})
}
