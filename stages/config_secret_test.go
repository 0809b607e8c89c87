package stages

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// Credentials as people have them. None of them opens anything.
var planted = []string{
	"dbefbc809e3e83c283a984c3a1459732ea7db1360ca80c5c2c8867408d28cc83",
	"vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A",
	"MC4CAQAwBQYDK2VwBCIEIAkYm+0YYjJ3P9xYlP2SWWmVn7jj7eoL0/fKq1c3SExt",
	"correct-Horse7battery-staple-Xq9-wall",
}

// TestPlantedCredentialsAreNeverEchoed puts credentials into every key of the configuration in every way that can be
// written: whatever is said of it, and whatever is shown of what was accepted, is without them.
func TestPlantedCredentialsAreNeverEchoed(t *testing.T) {
	var texts []string
	for _, secret := range planted {
		for _, key := range leaves("", reflect.ValueOf(Config{})) {
			section, name, nested := strings.Cut(key, ".")
			kinds := []string{"exit_brain.bar", "exit_brain.trend_method", "exit_brain.a1", "exit_brain.enabled", "apply.attempts", "governor.auto_approve", "governor.daily_notional"}
			if slices.Contains([]string{"exit_brain", "apply", "governor", "reconcile"}, section) && !slices.Contains(kinds, key) {
				continue // The many parameters are read by their kind.
			}
			for _, value := range []string{
				secret, `"` + secret + `"`, "{" + secret + ": 1}", "{? " + secret + " : }", "[" + secret + "]", "[" + secret + ", " + secret + "]", "*" + secret,
				"!" + secret + " 1", "&" + secret + " 1", "|\n   " + secret + "\n   " + secret, "[{name: " + secret + "}]", "[{" + secret + ": 1}]",
				"https://" + secret + "@example.com", "https://user:" + secret + "@example.com/x", "https://example.com/?key=" + secret, secret + "://example.com",
				"wss://user:" + secret + "@example.com", "https://" + secret + "/", secret + ":8787", "user:" + secret + "@127.0.0.1:8787", "[" + secret,
			} {
				if nested {
					texts = append(texts, fmt.Sprintf("%s: {%s: %s}", section, name, strings.ReplaceAll(value, "|\n", "|-\n")), fmt.Sprintf("%s:\n  %s: %s\n", section, name, value))
				} else {
					texts = append(texts, fmt.Sprintf("%s: %s\n", key, value))
				}
			}
		}
		for _, section := range []string{"exchange", "live", "http", "log", "governor"} {
			texts = append(texts, section+": "+secret, section+": {api_secret: "+secret+"}", section+": {"+secret+"}", section+": {"+secret+": 1, "+secret+": 2}",
				section+": ["+secret+"]", "symbols: [{name: BTCUSDT, "+section+": {api_key: "+secret+"}}]")
		}
		texts = append(texts, secret, secret+": 1", "api_secret: "+secret, "binance: {key: "+secret+"}", "- "+secret, "a: b\n---\n"+secret, "paper: {ledger: {BTCUSDT: 1, "+secret+": 1}}")
	}
	defaults := configYAML(t)
	refused := 0
	for _, text := range texts {
		c, err := ParseConfig(defaults, "c.yaml", []byte(text))
		said := fmt.Sprint(err)
		if err == nil {
			said = string(c.Effective()) + strings.Join(c.Warnings(), "\n")
		} else {
			refused++
		}
		for _, secret := range planted {
			for at := 0; at+10 <= len(secret); at++ {
				if part := secret[at : at+10]; strings.Contains(said, part) {
					t.Errorf("%s\nis answered with %s of it:\n%s", text, part, said)
					break
				}
			}
		}
	}
	if refused < len(texts)*9/10 {
		t.Errorf("%d of %d texts are refused", refused, len(texts))
	}
}

// What a person names things by is still shown, or nobody could find their mistake.
func TestOrdinaryWordsAreShown(t *testing.T) {
	for _, text := range []string{"BTCUSDT", "portfolio_daily_notionall", "5 minutes", "reconcile_required_qty", "127.0.0.1:8787", "12345678901234567.5", "theil-sen"} {
		if got("bad", text) != fmt.Sprintf("bad (got %q)", text) {
			t.Errorf("%s is not shown: %s", text, got("bad", text))
		}
	}
	for _, text := range []string{"./state", "/var/lib/permitchain", "/tmp/TestANewLiveLedgerStartsDisarmed3417823174/001", "/srv/permitchain-production-account-number-seven/state"} {
		if credential(text) {
			t.Errorf("the folder %s is taken for a credential", text)
		}
	}
}
