package build

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// E2E are the paths of what upstream's end-to-end tests consist of.
type E2E struct {
	Test       string // the test binary
	Ginkgo     string // what runs it in several processes
	OutOfOrder string // the program of image regression-issue-74839, which sends segments out of their window

	Certificate, Key string // files of image agnhost, in PEM
}

// E2E builds upstream's end-to-end tests of the network from lab/kube, once for
// each state of its sources. It needs a source tree.
func (r Request) E2E(ctx context.Context) (E2E, error) {
	r, err := r.inCache()
	if err != nil {
		return E2E{}, err
	}
	if r.Source, err = FindSource(r.Source); err != nil {
		return E2E{}, err
	}
	unlock, err := r.lock(ctx)
	if err != nil {
		return E2E{}, err
	}
	defer unlock()
	module := filepath.Join(r.Source, "lab", "kube")
	key, err := kubeKey(ctx, module)
	if err != nil {
		return E2E{}, err
	}
	dir := filepath.Join(r.Cache, "e2e-"+key)
	built := E2E{
		Test: filepath.Join(dir, "e2e.test"), Ginkgo: filepath.Join(dir, "ginkgo"),
		OutOfOrder:  filepath.Join(dir, "regression-issue-74839"),
		Certificate: filepath.Join(dir, "localhost.crt"), Key: filepath.Join(dir, "localhost.key"),
	}
	if _, err := os.Stat(dir); err == nil {
		return built, nil
	}
	return built, r.buildE2E(ctx, module, dir)
}

func (r Request) buildE2E(ctx context.Context, module, dir string) error {
	fresh, err := os.MkdirTemp(r.Cache, "building-")
	if err != nil {
		return fmt.Errorf("making a build directory: %w", err)
	}
	defer os.RemoveAll(fresh)
	r.say("building the end-to-end tests of Kubernetes %s; the first time takes 5 to 15 minutes", KubernetesVersion)
	start := time.Now()
	const flags = "-s -w -X k8s.io/component-base/version.gitVersion=" + KubernetesVersion
	for _, argv := range [][]string{
		{"test", "-c", "-trimpath", "-ldflags", flags, "-o", filepath.Join(fresh, "e2e.test"), "./e2e"},
		{"build", "-v", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o", fresh + "/",
			"github.com/onsi/ginkgo/v2/ginkgo", "k8s.io/kubernetes/test/images/regression-issue-74839"},
	} {
		if err := r.goTool(ctx, module, argv...); err != nil {
			return fmt.Errorf("building the end-to-end tests: %w", err)
		}
	}
	if err := copyCertificate(ctx, module, fresh); err != nil {
		return err
	}
	if err := os.Chmod(fresh, 0o755); err != nil {
		return fmt.Errorf("opening the build directory: %w", err)
	}
	if err := os.Rename(fresh, dir); err != nil {
		return fmt.Errorf("keeping what was built: %w", err)
	}
	r.say("built the end-to-end tests in %s", time.Since(start).Round(time.Second))
	return nil
}

// copyCertificate copies what image agnhost serves HTTPS with.
func copyCertificate(ctx context.Context, module, to string) error {
	command := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes")
	command.Dir = module
	command.Env = append(os.Environ(), "GOWORK=off")
	kubernetes, err := command.Output()
	if err != nil {
		return fmt.Errorf("finding the module of Kubernetes: %w", err)
	}
	for _, name := range []string{"localhost.crt", "localhost.key"} {
		content, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(kubernetes)), "test", "images", "agnhost", "porter", name))
		if err == nil {
			err = os.WriteFile(filepath.Join(to, name), content, 0o644)
		}
		if err != nil {
			return fmt.Errorf("copying the certificate of agnhost: %w", err)
		}
	}
	return nil
}
