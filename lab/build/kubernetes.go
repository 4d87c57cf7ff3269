package build

import (
	"context"
	"os"
	"path/filepath"
)

// Kubernetes builds the programs of lab/kube alone, once for each state of their
// sources, and returns their directory. It needs a source tree.
func (r Request) Kubernetes(ctx context.Context) (string, error) {
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
	return r.kube(ctx)
}

// BuiltKubernetes is the directory of the programs of lab/kube if they are built
// of their sources as these are now; empty: they are not.
func (r Request) BuiltKubernetes(ctx context.Context) (string, error) {
	r, err := r.inCache()
	if err != nil {
		return "", err
	}
	if r.Source, err = FindSource(r.Source); err != nil {
		return "", err
	}
	key, err := kubeKey(ctx, filepath.Join(r.Source, "lab", "kube"))
	if err != nil {
		return "", err
	}
	dir := filepath.Join(r.Cache, "kube-"+key)
	if _, err := os.Stat(dir); err != nil {
		return "", nil
	}
	return dir, nil
}
