package build

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// PolicyAPI are the paths of what the conformance tests of network-policy-api
// consist of.
type PolicyAPI struct {
	Test    string // the test binary
	Agnhost string // what stands before agnhost in its image, and has SCTP without the kernel
}

// PolicyAPI builds the conformance tests of network-policy-api, once for each
// state of their sources. It needs a source tree.
func (r Request) PolicyAPI(ctx context.Context) (PolicyAPI, error) {
	r, err := r.inCache()
	if err != nil {
		return PolicyAPI{}, err
	}
	if r.Source, err = FindSource(r.Source); err != nil {
		return PolicyAPI{}, err
	}
	unlock, err := r.lock(ctx)
	if err != nil {
		return PolicyAPI{}, err
	}
	defer unlock()
	module := filepath.Join(r.Source, "lab", "policyapi", "suite")
	key, err := kubeKey(ctx, module)
	if err != nil {
		return PolicyAPI{}, err
	}
	built := PolicyAPI{Test: filepath.Join(r.Cache, "policyapi-"+key), Agnhost: filepath.Join(r.Cache, "policyapi-agnhost")}
	if err := r.goTool(ctx, r.Source, "build", "-trimpath", "-buildvcs=false", "-o", built.Agnhost, "./lab/policyapi/agnhost"); err != nil {
		return PolicyAPI{}, fmt.Errorf("building agnhost with SCTP: %w", err)
	}
	if _, err := os.Stat(built.Test); err == nil {
		return built, nil
	}
	r.say("building the conformance tests of network-policy-api; the first time takes two or three minutes")
	fresh := built.Test + ".building"
	defer os.Remove(fresh)
	if err := r.goTool(ctx, module, "test", "-c", "-trimpath", "-ldflags", "-s -w", "-o", fresh, "."); err != nil {
		return PolicyAPI{}, fmt.Errorf("building the conformance tests: %w", err)
	}
	if err := os.Rename(fresh, built.Test); err != nil {
		return PolicyAPI{}, fmt.Errorf("keeping what was built: %w", err)
	}
	return built, nil
}
