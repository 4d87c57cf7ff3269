// Command policyapi runs the conformance tests of sigs.k8s.io/network-policy-api
// against Fairlead: it builds them, makes a lab, and tells what became of each.
// docs/e2e.md says more.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"

	"github.com/fairlead-net/fairlead/lab"
	"github.com/fairlead-net/fairlead/lab/build"
	"github.com/fairlead-net/fairlead/lab/image"
)

// agnhostImage is the one that the manifests of the tests name.
const agnhostImage = "registry.k8s.io/e2e-test-images/agnhost:2.45"

func main() {
	name := flag.String("name", "policyapi", "name of the lab")
	only := flag.String("only", "", "run only those tests whose names match this regular expression")
	out := flag.String("out", "bin/policyapi", "directory for policyapi.log")
	keep := flag.Bool("keep", false, "leave the lab up")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	l, err := open(ctx, *name)
	if err == nil {
		err = run(ctx, l, *only, *out)
		if !*keep {
			err = errors.Join(err, lab.Down(context.WithoutCancel(ctx), *name))
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// open is a lab of that name that is up, or a new one.
func open(ctx context.Context, name string) (*lab.Lab, error) {
	if l, err := lab.Open(name); err == nil && l.Ready() {
		return l, nil
	}
	return lab.Up(ctx, lab.Config{Name: name, Nodes: 3, DNS: "fairlead"}, os.Stdout)
}

// run runs the tests in the lab; that one failed is an error.
func run(ctx context.Context, l *lab.Lab, only, out string) error {
	built, err := build.Request{Out: os.Stdout}.PolicyAPI(ctx)
	if err != nil {
		return err
	}
	if err := loadImage(ctx, l, built.Agnhost); err != nil {
		return err
	}
	source, err := build.FindSource("")
	if err != nil {
		return err
	}
	if _, err := l.Kubectl(ctx, "apply", "--server-side", "--filename", filepath.Join(source, "deploy", "clusternetworkpolicy.yaml")); err != nil {
		return err
	}
	if _, err := l.Kubectl(ctx, "wait", "--for=condition=Established", "--timeout=30s", "crd/clusternetworkpolicies.policy.networking.k8s.io"); err != nil {
		return err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return fmt.Errorf("making the directory of the log: %w", err)
	}
	log, err := os.Create(filepath.Join(out, "policyapi.log"))
	if err != nil {
		return fmt.Errorf("opening the log: %w", err)
	}
	defer log.Close()
	pattern := "^TestConformance$"
	if only != "" {
		pattern += "/" + only
	}
	command := exec.CommandContext(ctx, built.Test, "-test.v", "-test.timeout=1h", "-test.run="+pattern)
	command.Env = append(os.Environ(), "KUBECONFIG="+l.Kubeconfig())
	results := &verdicts{}
	command.Stdout = io.MultiWriter(log, results)
	command.Stderr = log
	failed := command.Run()
	fmt.Printf("%s%d passed, %d failed; all that the tests wrote is in %s\n", results.text.String(), results.passed, results.failed, log.Name())
	if failed != nil {
		return fmt.Errorf("running the tests: %w", failed)
	}
	return nil
}

// loadImage has all nodes of the lab have the image that the tests name.
func loadImage(ctx context.Context, l *lab.Lab, agnhost string) error {
	shell, err := lab.Shell(ctx)
	if err != nil {
		return err
	}
	bash, err := image.Programs("/bin/bash")
	if err != nil {
		return fmt.Errorf("%w; apt-get install --no-install-recommends bash", err)
	}
	programs := image.Layer{
		{Path: "/agnhost", Source: agnhost},
		{Path: "/agnhost.upstream", Source: filepath.Join(l.Binaries(), "agnhost")},
	}
	file, err := os.CreateTemp("", "fairlead-policyapi-*.tar")
	if err != nil {
		return fmt.Errorf("writing the image: %w", err)
	}
	defer os.Remove(file.Name())
	defer file.Close()
	if err := image.Write(file, image.Image{
		Name: agnhostImage, Layers: []image.Layer{shell, bash, programs}, Architecture: runtime.GOARCH,
		Entrypoint: []string{"/agnhost"}, Command: []string{"pause"},
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
	}); err != nil {
		return err
	}
	return l.LoadImages(ctx, file.Name())
}

// verdicts picks out of the output of a test what became of each, and shows it
// as it comes.
type verdicts struct {
	rest           string
	text           strings.Builder
	passed, failed int
}

var verdict = regexp.MustCompile(`^ {4}--- (PASS|FAIL|SKIP): TestConformance/(\S+) \((.*)\)$`)

func (v *verdicts) Write(b []byte) (int, error) {
	v.rest += string(b)
	for {
		line, rest, whole := strings.Cut(v.rest, "\n")
		if !whole {
			return len(b), nil
		}
		v.rest = rest
		if name, ok := strings.CutPrefix(line, "=== RUN   TestConformance/"); ok {
			fmt.Println("running", name)
		}
		found := verdict.FindStringSubmatch(line)
		if found == nil {
			continue
		}
		fmt.Fprintf(&v.text, "%s %s (%s)\n", found[1], found[2], found[3])
		switch found[1] {
		case "PASS":
			v.passed++
		case "FAIL":
			v.failed++
		}
	}
}
