package build

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// CoreDNS builds the CoreDNS of bench/dns/coredns, once for each state of its
// sources, and returns its path. It needs a source tree. The one that labs run is
// another, and older: kubeadm's.
func (r Request) CoreDNS(ctx context.Context) (string, error) {
	r, err := r.inCache()
	if err != nil {
		return "", err
	}
	if r.Source, err = FindSource(r.Source); err != nil {
		return "", err
	}
	unlock, err := r.lock(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()
	module := filepath.Join(r.Source, "bench", "dns", "coredns")
	key, err := kubeKey(ctx, module)
	if err != nil {
		return "", err
	}
	program := filepath.Join(r.Cache, "coredns-"+key)
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	r.say("building CoreDNS; the first time takes a minute or two")
	fresh := program + ".building"
	defer os.Remove(fresh)
	if err := r.goTool(ctx, module, "build", "-v", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", fresh, "."); err != nil {
		return "", fmt.Errorf("building CoreDNS: %w", err)
	}
	if err := os.Rename(fresh, program); err != nil {
		return "", fmt.Errorf("keeping what was built: %w", err)
	}
	return program, nil
}
