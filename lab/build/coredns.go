package build

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// CoreDNS builds the CoreDNS of bench/dns/coredns, once for each state of its
// sources, and returns its path. It needs a source tree. The one that labs run is
// another, and older: kubeadm's.
func (r Request) CoreDNS(ctx context.Context) (string, error) {
	return r.other(ctx, "CoreDNS", ".", "bench", "dns", "coredns")
}

// Pebble builds the authority that gives certificates to tests, which is Let's
// Encrypt's own, like CoreDNS.
func (r Request) Pebble(ctx context.Context) (string, error) {
	return r.other(ctx, "Pebble", "github.com/letsencrypt/pebble/v2/cmd/pebble", "servers", "gateway", "acme", "testdata", "pebble")
}

// other builds a package of a module that is none of Fairlead's, below the source tree.
func (r Request) other(ctx context.Context, name, pkg string, module ...string) (string, error) {
	r, err := r.inCache()
	if err != nil {
		return "", err
	}
	if r.Source, err = FindSource(r.Source); err != nil {
		return "", err
	}
	dir := filepath.Join(append([]string{r.Source}, module...)...)
	key, err := kubeKey(ctx, dir)
	if err != nil {
		return "", err
	}
	program := filepath.Join(r.Cache, strings.ToLower(name)+"-"+key)
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	unlock, err := r.lock(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(program); err == nil { // another has built it meanwhile
		return program, nil
	}
	r.say("building " + name + "; the first time takes a minute or two")
	fresh := program + ".building"
	defer os.Remove(fresh)
	if err := r.goTool(ctx, dir, "build", "-v", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", fresh, pkg); err != nil {
		return "", fmt.Errorf("building %s: %w", name, err)
	}
	if err := os.Rename(fresh, program); err != nil {
		return "", fmt.Errorf("keeping what was built: %w", err)
	}
	return program, nil
}
