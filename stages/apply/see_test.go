package apply

import (
	"testing"
	"time"

	"permitchain/exchange"
	"permitchain/ledger"
)

// busy is an exchange on whose board a snapshot arrives whenever its clock has been looked at.
type busy struct {
	exchange.Exchange
	board *exchange.Board
	at    time.Time
}

func (b *busy) Now() time.Time {
	at := b.at
	b.at = at.Add(time.Millisecond)
	b.board.PutSnapshot(ledger.Snapshot{SentAt: b.at})
	return at
}

// A snapshot that arrives while apply looks is not of the future: Join would deny as stale what both have permitted.
func TestWhatIsSeenIsNotOfTheFuture(t *testing.T) {
	board := exchange.NewBoard(nil)
	b := &busy{board: board, at: time.Date(2026, 1, 25, 0, 26, 8, 0, time.UTC)}
	a := &Stage{Exchange: b, Board: board}
	a.see("BTCUSDT")
	b.at = b.at.Add(time.Second)
	if see := a.see("BTCUSDT"); !ledger.Fresh(see.Snapshot.SentAt, see.At, 10*time.Second) {
		t.Errorf("at %s it has a snapshot of %s", see.At, see.Snapshot.SentAt)
	}
}
