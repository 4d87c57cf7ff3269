// Package htpasswd reads files of users and the hashes of their passwords, as
// Apache's htpasswd writes them, and checks passwords against them.
//
// Users may be asked concurrently. A password that was right is remembered as a
// keyed hash, since bcrypt takes tens of milliseconds and browsers send the password
// with each request.
package htpasswd

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/crypto/bcrypt"
)

// MostCost is that of bcrypt that is taken: at 12, a password takes a quarter of a
// second of a processor. Who may write a Secret could stop the server with more.
const MostCost = 12

// Users are those of a file.
type Users struct {
	by map[string]hash
	// slowest takes as long as the slowest of them, and is nobody's: time does not
	// tell which names there are.
	slowest hash
	key     [32]byte // of known
	waiting atomic.Int32
	busy    chan struct{} // passwords are hashed in few goroutines at a time

	mu    sync.Mutex
	known map[[sha256.Size]byte]struct{} // names and passwords that were right
}

// hash is one that a password is compared with.
type hash interface {
	is(password string) bool
	cost() int // the higher, the longer it takes
}

const (
	mostKnown = 4096
	mostBusy  = 2
	// mostWaiting passwords are hashed or wait for it: of a flood of wrong ones, the
	// rest is refused at once.
	mostWaiting = 64
	mostLines   = 1 << 16
	// mostPassword is how long one may be, in bytes: hashing costs as much.
	mostPassword = 256
)

// Parse reads lines of NAME:HASH. Those that are not understood are left out, with
// an error that says which: their users cannot log in. Empty lines and those that
// begin with # say nothing.
func Parse(text []byte) (*Users, []error) {
	u := &Users{by: map[string]hash{}, known: map[[sha256.Size]byte]struct{}{}, busy: make(chan struct{}, mostBusy)}
	_, _ = rand.Read(u.key[:]) // it never fails
	var wrong []error
	lines := bufio.NewScanner(bytes.NewReader(text))
	for number := 1; lines.Scan(); number++ {
		if number > mostLines {
			wrong = append(wrong, fmt.Errorf("line %d: a file has %d lines at most", number, mostLines))
			break
		}
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		name, text, ok := strings.Cut(line, ":")
		if !ok || name == "" {
			wrong = append(wrong, fmt.Errorf("line %d: want NAME:HASH, as htpasswd writes it", number))
			continue
		}
		text, _, _ = strings.Cut(text, ":")
		if err := u.Add(name, text); err != nil {
			wrong = append(wrong, fmt.Errorf("line %d, user %s: %w", number, name, err))
		}
	}
	if err := lines.Err(); err != nil {
		wrong = append(wrong, fmt.Errorf("reading lines: %w", err))
	}
	return u, wrong
}

// Add adds a user, if there is none of the name: the first line counts. It is not
// for who asks already.
func (u *Users) Add(name, text string) error {
	made, err := parse(text)
	if err != nil {
		return err
	}
	if _, ok := u.by[name]; !ok {
		u.by[name] = made
	}
	if u.slowest == nil || made.cost() > u.slowest.cost() {
		u.slowest = made
	}
	return nil
}

// Len is how many users there are.
func (u *Users) Len() int { return len(u.by) }

// Check tells whether a password is that of a user.
func (u *Users) Check(name, password string) bool {
	if len(password) > mostPassword {
		return false
	}
	mac := hmac.New(sha256.New, u.key[:])
	fmt.Fprintf(mac, "%d:%s%s", len(name), name, password)
	var seen [sha256.Size]byte
	mac.Sum(seen[:0])
	u.mu.Lock()
	_, ok := u.known[seen]
	u.mu.Unlock()
	if ok {
		return true
	}
	of, ok := u.by[name]
	if !ok {
		if of = u.slowest; of == nil {
			return false
		}
	}
	if u.waiting.Add(1) > mostWaiting {
		u.waiting.Add(-1)
		return false
	}
	defer u.waiting.Add(-1)
	u.busy <- struct{}{}
	right := of.is(password) && ok
	<-u.busy
	if !right {
		return false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.known) >= mostKnown {
		clear(u.known)
	}
	u.known[seen] = struct{}{}
	return true
}

func parse(text string) (hash, error) {
	switch {
	case strings.HasPrefix(text, "$2a$"), strings.HasPrefix(text, "$2b$"), strings.HasPrefix(text, "$2y$"):
		cost, err := bcrypt.Cost([]byte(text))
		if err != nil {
			return nil, fmt.Errorf("the hash of bcrypt is damaged: %w", err)
		}
		if cost > MostCost {
			return nil, fmt.Errorf("bcrypt of cost %d takes too long for each request: %d is the most (htpasswd -B -C %d)", cost, MostCost, MostCost)
		}
		return bcrypted(text), nil
	case strings.HasPrefix(text, "$apr1$"), strings.HasPrefix(text, "$1$"):
		magic := text[:strings.IndexByte(text[1:], '$')+2]
		salt, sum, ok := strings.Cut(text[len(magic):], "$")
		if !ok || len(sum) != 22 || len(salt) > 8 {
			return nil, errors.New("the hash of MD5 is damaged")
		}
		return md5crypt{magic, salt, sum}, nil
	case strings.HasPrefix(text, "{SHA}"), strings.HasPrefix(text, "{SSHA}"):
		_, encoded, _ := strings.Cut(text, "}")
		raw, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil || len(raw) < sha1.Size || text[1:5] == "SHA}" && len(raw) > sha1.Size {
			return nil, errors.New("the hash of SHA-1 is damaged")
		}
		return sha(raw), nil
	}
	return nil, errors.New("what follows its name is no hash of bcrypt, MD5 (apr1) or SHA-1; make it anew with htpasswd -B")
}

type bcrypted string

func (b bcrypted) is(password string) bool {
	return bcrypt.CompareHashAndPassword([]byte(b), []byte(password)) == nil
}

func (b bcrypted) cost() int {
	cost, _ := bcrypt.Cost([]byte(b)) // it was read before
	return 100 << cost
}

// sha is the sum of SHA-1 and, behind it, the salt (RFC 2307 and its successors).
type sha string

func (s sha) is(password string) bool {
	sum := sha1.Sum([]byte(password + string(s[sha1.Size:])))
	return subtle.ConstantTimeCompare(sum[:], []byte(s[:sha1.Size])) == 1
}

func (sha) cost() int { return 0 }
