package stages

import (
	"regexp"
	"strings"
	"unicode"
)

// Credentials have no place in a configuration, and people put them there all the same: under a key that sounds right,
// in an address, or where a word belongs. What is said of a value is said without it wherever it could be one.

var (
	// run is what a credential is written in, long enough to be one.
	run = regexp.MustCompile(`[A-Za-z0-9+/_=-]{20,}`)
	// exchangeKey is an API key, or its secret.
	exchangeKey = regexp.MustCompile(`(^|[^A-Za-z0-9])[A-Za-z0-9]{64}($|[^A-Za-z0-9])`)
	// opaque is a long word, in a value that is no path.
	opaque = regexp.MustCompile(`^[^/]*[A-Za-z0-9+_=-]{32,}[^/]*$`)
	// bareKey is a private key without its PEM header: Ed25519, or RSA.
	bareKey = regexp.MustCompile(`MC4CAQAwBQYDK2Vw|MII[A-Za-z0-9+/=]{60}`)
	// inQuotes is what the YAML reader repeats of a file; a character or two are its own.
	inQuotes = regexp.MustCompile(`'[^' ]{3,}'`)
)

const (
	privateKey = "PRIVATE KEY" // in a PEM file
	notShown   = "(not shown)" // instead of a word that could be a credential
)

// secretive tells whether a value could be a credential, or hold one. It may err on this side.
func secretive(text string) bool {
	for _, word := range run.FindAllString(text, -1) {
		if len(word) >= 32 || mixed(word) {
			return true
		}
	}
	return strings.Contains(text, "@") || strings.Contains(text, privateKey)
}

// mixed tells a word with digits, or with capitals and small letters, from one that a person would name something by.
func mixed(word string) bool {
	return strings.ContainsFunc(word, unicode.IsDigit) || strings.ContainsFunc(word, unicode.IsUpper) && strings.ContainsFunc(word, unicode.IsLower)
}

// credential tells whether a value that would be accepted, and shown and journalled with the rest, is one.
func credential(text string) bool {
	return exchangeKey.MatchString(text) || strings.Contains(text, privateKey) || bareKey.MatchString(text) || opaque.MatchString(text) && mixed(text)
}

// private tells the sections whose values are never shown in a message.
func private(path string) bool {
	return path == "exchange" || path == "live" || strings.HasPrefix(path, "exchange.") || strings.HasPrefix(path, "live.")
}

// gotAt adds what the user wrote below path to a problem.
func gotAt(path, problem, text string) string {
	if private(path) {
		return problem
	}
	return got(problem, text)
}
