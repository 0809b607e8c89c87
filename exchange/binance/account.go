package binance

import (
	"context"
	"fmt"
	"net/url"

	"github.com/adshao/go-binance/v2/futures"
)

// Account is what the account, and the key, may do.
type Account struct {
	CanTrade    bool
	Hedge       bool
	MultiAssets bool
	Key         *KeyRights // nil: this host does not tell
}

// KeyRights are the rights of the API key.
type KeyRights struct {
	Futures     bool
	Withdrawals bool
	BoundToIP   bool
}

// account reads the configuration; what a field's absence would mean nobody says.
func (b *Binance) account(ctx context.Context) (Account, error) {
	c := &call{what: "GET /fapi/v1/accountConfig", weight: 5, essential: true}
	e := b.do(ctx, c, func(ctx context.Context, f *futures.Client) error {
		_, err := f.NewGetAccountConfigService().Do(ctx, b.window())
		return err
	})
	if e != nil {
		return Account{}, fmt.Errorf("read the account's configuration: %w", e)
	}
	f := fieldsOf(c.body)
	a := Account{CanTrade: f.flag("canTrade"), Hedge: f.flag("dualSidePosition"), MultiAssets: f.flag("multiAssetsMargin")}
	if f.err != nil {
		return Account{}, fmt.Errorf("read the account's configuration: %w", f.err)
	}
	return a, nil
}

// Account reads what the account may do and, where the host tells, what the key may.
func (b *Binance) Account(ctx context.Context) (Account, error) {
	a, err := b.account(ctx)
	if err != nil {
		return a, err
	}
	base := b.opt.RESTURL
	switch base {
	case liveREST:
		base = liveAccount
	case testnetREST:
		return a, nil // Its keys cannot withdraw, and it has no such call.
	}
	c := &call{what: "GET /sapi/v1/account/apiRestrictions"}
	e := b.do(ctx, c, func(ctx context.Context, f *futures.Client) error {
		return b.get(ctx, f, base, "/sapi/v1/account/apiRestrictions", url.Values{})
	})
	if e != nil {
		return a, fmt.Errorf("read the key's rights: %w", e)
	}
	f := fieldsOf(c.body)
	a.Key = &KeyRights{Futures: f.flag("enableFutures"), Withdrawals: f.flag("enableWithdrawals"), BoundToIP: f.flag("ipRestrict")}
	if f.err != nil {
		return a, fmt.Errorf("read the key's rights: %w", f.err)
	}
	return a, nil
}
