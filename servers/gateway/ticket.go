package gateway

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"time"
)

// The keys of session tickets: who has one can read what was said in sessions of
// TLS 1.2 that were resumed by them, so they do not live long. They are never on a
// disk, and no other process has them: a client that comes to another node makes a
// whole handshake.
const (
	ticketLife = time.Hour // for which a key makes tickets
	ticketKeys = 12        // the last ones, whose tickets are taken
)

// tickets are the keys of configurations. One goroutine uses it.
type tickets struct {
	configs []*tls.Config
	keys    [][32]byte // the newest first
}

// rotate makes a new key.
func (t *tickets) rotate() {
	var key [32]byte
	_, _ = rand.Read(key[:]) // it never fails
	t.keys = append([][32]byte{key}, t.keys[:min(len(t.keys), ticketKeys-1)]...)
	for _, config := range t.configs {
		config.SetSessionTicketKeys(t.keys)
	}
}

// run rotates until the context ends.
func (t *tickets) run(ctx context.Context) {
	ticker := time.NewTicker(ticketLife)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			t.rotate()
		}
	}
}
