// Package build makes the programs a lab runs: upstream Kubernetes, containerd,
// CoreDNS and test images from the module in lab/kube, and Fairlead from the
// checkout. Results are kept in a cache directory, so that nothing is built
// twice and nothing stale is used. It starts nothing and installs nothing.
//
// Concurrent callers, of other processes too, wait for each other on a lock
// file in the cache directory.
package build

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// KubernetesVersion is the version that lab/kube builds and its binaries tell.
const KubernetesVersion = "v1.36.3"

// modulePath is the module that a source tree must hold.
const modulePath = "github.com/fairlead-net/fairlead"

// Request says what to build from where.
type Request struct {
	Source string    // root of a checkout; empty means the one around the working directory
	Cache  string    // empty means fairlead-lab in the user's cache directory
	Out    io.Writer // told what is built and how long it took

	environment []string // of go, besides that of the process
}

// Programs are the paths of what was built.
type Programs struct {
	Kube        string // directory of kube-apiserver, kubelet, containerd, agnhost …
	Fairlead    string
	FairleadCNI string
}

// kubeTargets are the main packages of lab/kube, and the names that the
// multi-call binary "kube" is called by.
var (
	kubeTargets = []string{
		"./kube", "./coredns", "./pause",
		"github.com/containerd/containerd/v2/cmd/containerd",
		"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
		"github.com/containerd/containerd/v2/cmd/ctr",
		"k8s.io/kubernetes/test/images/agnhost",
	}
	kubeNames = []string{
		"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl",
	}
)

// Run builds what is not built yet. Without a source tree it takes the running
// program, fairlead-cni beside it, and the newest Kubernetes of the cache.
func (r Request) Run(ctx context.Context) (Programs, error) {
	r, err := r.inCache()
	if err != nil {
		return Programs{}, err
	}
	source, err := FindSource(r.Source)
	if errors.Is(err, ErrNoSource) && r.Source == "" {
		return r.withoutSource()
	} else if err != nil {
		return Programs{}, err
	}
	r.Source = source
	unlock, err := r.lock(ctx)
	if err != nil {
		return Programs{}, err
	}
	defer unlock()
	kube, err := r.kube(ctx)
	if err != nil {
		return Programs{}, err
	}
	own, err := r.fairlead(ctx)
	if err != nil {
		return Programs{}, err
	}
	own.Kube = kube
	return own, nil
}

// inCache is the request with its cache, which is made if it is missing.
func (r Request) inCache() (Request, error) {
	if r.Cache == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			base = "/root/.cache"
		}
		r.Cache = filepath.Join(base, "fairlead-lab")
	}
	if err := os.MkdirAll(r.Cache, 0o755); err != nil {
		return r, fmt.Errorf("making the build cache: %w", err)
	}
	return r, nil
}

// ErrNoSource says that no checkout of Fairlead is where it was looked for.
var ErrNoSource = errors.New("no source tree of Fairlead")

// FindSource returns the root of the checkout that holds dir, the working
// directory if dir is empty.
func FindSource(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("finding the source tree: %w", err)
	}
	for at := dir; ; at = filepath.Dir(at) {
		mod, err := os.ReadFile(filepath.Join(at, "go.mod"))
		if err == nil && slices.Contains(strings.Split(string(mod), "\n"), "module "+modulePath) {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("%w in %s or above it; run in a checkout, or give --source", ErrNoSource, dir)
		}
	}
}

func (r Request) withoutSource() (Programs, error) {
	self, err := os.Executable()
	if err != nil {
		return Programs{}, fmt.Errorf("finding the running program: %w", err)
	}
	programs := Programs{Fairlead: self, FairleadCNI: filepath.Join(filepath.Dir(self), "fairlead-cni")}
	if _, err := os.Stat(programs.FairleadCNI); err != nil {
		return Programs{}, fmt.Errorf("%w here, and no fairlead-cni beside %s; run in a checkout, or give --source", ErrNoSource, self)
	}
	built, err := filepath.Glob(filepath.Join(r.Cache, "kube-*"))
	if err != nil || len(built) == 0 {
		return Programs{}, fmt.Errorf("%w here to build Kubernetes from, and none built in %s; run in a checkout, or give --source", ErrNoSource, r.Cache)
	}
	newest := slices.MaxFunc(built, func(a, b string) int { return modified(a).Compare(modified(b)) })
	programs.Kube = newest
	return programs, nil
}

func modified(path string) time.Time {
	stat, err := os.Stat(path)
	if err != nil {
		return time.Time{}
	}
	return stat.ModTime()
}

// lock waits until no other build uses the cache.
func (r Request) lock(ctx context.Context) (unlock func(), err error) {
	file, err := os.OpenFile(filepath.Join(r.Cache, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the build cache: %w", err)
	}
	told := false
	for {
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { file.Close() }, nil
		}
		if !told {
			r.say("waiting for another build in %s", r.Cache)
			told = true
		}
		select {
		case <-ctx.Done():
			file.Close()
			return nil, fmt.Errorf("waiting for another build: %w", context.Cause(ctx))
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// kube builds the programs of lab/kube once for each state of its sources.
func (r Request) kube(ctx context.Context) (string, error) {
	module := filepath.Join(r.Source, "lab", "kube")
	key, err := kubeKey(ctx, module)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(r.Cache, "kube-"+key)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	fresh, err := os.MkdirTemp(r.Cache, "building-")
	if err != nil {
		return "", fmt.Errorf("making a build directory: %w", err)
	}
	defer os.RemoveAll(fresh)
	r.say("building Kubernetes %s, containerd and CoreDNS; the first time takes 5 to 20 minutes", KubernetesVersion)
	start := time.Now()
	version := strings.Split(strings.TrimPrefix(KubernetesVersion, "v"), ".")
	const stamp = "-X k8s.io/component-base/version."
	flags := "-s -w " + stamp + "gitVersion=" + KubernetesVersion +
		" " + stamp + "gitMajor=" + version[0] + " " + stamp + "gitMinor=" + version[1]
	argv := append([]string{"build", "-v", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o", fresh + "/"}, kubeTargets...)
	if err := r.goTool(ctx, module, argv...); err != nil {
		return "", fmt.Errorf("building Kubernetes: %w", err)
	}
	for _, name := range kubeNames {
		if err := os.Symlink("kube", filepath.Join(fresh, name)); err != nil {
			return "", fmt.Errorf("naming the components of Kubernetes: %w", err)
		}
	}
	if err := os.Chmod(fresh, 0o755); err != nil {
		return "", fmt.Errorf("opening the build directory: %w", err)
	}
	if err := os.Rename(fresh, dir); err != nil {
		return "", fmt.Errorf("keeping what was built: %w", err)
	}
	r.say("built Kubernetes in %s", time.Since(start).Round(time.Second))
	return dir, nil
}

// kubeKey is a hash of all that decides what is built of a module that the lab
// builds for itself, such as lab/kube.
func kubeKey(ctx context.Context, module string) (string, error) {
	command := exec.CommandContext(ctx, "go", "env", "GOVERSION", "GOOS", "GOARCH")
	command.Dir = module
	version, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("asking go for its version: %w", err)
	}
	sum := sha256.New()
	fmt.Fprintf(sum, "%s%s%q%q\n", version, KubernetesVersion, kubeTargets, kubeNames)
	err = filepath.WalkDir(module, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		fmt.Fprintf(sum, "%s %d\n", strings.TrimPrefix(path, module), len(content))
		sum.Write(content)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("reading the sources of lab/kube: %w", err)
	}
	return hex.EncodeToString(sum.Sum(nil))[:16], nil
}

// fairlead builds Fairlead from the checkout; Go itself finds out whether
// anything changed. Each checkout has a directory of its own.
func (r Request) fairlead(ctx context.Context) (Programs, error) {
	sum := sha256.Sum256([]byte(r.Source))
	dir := filepath.Join(r.Cache, "fairlead-"+hex.EncodeToString(sum[:8]))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Programs{}, fmt.Errorf("making a build directory: %w", err)
	}
	start := time.Now()
	err := r.goTool(ctx, r.Source, "build", "-v", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w",
		"-o", dir+"/", "./cmd/fairlead", "./cmd/fairlead-cni")
	if err != nil {
		return Programs{}, fmt.Errorf("building Fairlead: %w", err)
	}
	if spent := time.Since(start); spent > 2*time.Second {
		r.say("built Fairlead in %s", spent.Round(100*time.Millisecond))
	}
	return Programs{Fairlead: filepath.Join(dir, "fairlead"), FairleadCNI: filepath.Join(dir, "fairlead-cni")}, nil
}

// goTool runs go in dir. It tells how many packages were compiled twice a
// minute, and puts the last lines of the output into the error.
func (r Request) goTool(ctx context.Context, dir string, argv ...string) error {
	command := exec.CommandContext(ctx, "go", argv...)
	command.Dir = dir
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	command.Env = append(command.Env, r.environment...)
	reader, writer := io.Pipe()
	command.Stdout, command.Stderr = writer, writer
	var lines []string
	var count atomic.Int64
	read := make(chan struct{})
	go func() {
		defer close(read)
		for scanner := bufio.NewScanner(reader); scanner.Scan(); count.Add(1) {
			lines = append(lines, scanner.Text())
			lines = lines[max(0, len(lines)-20):]
		}
	}()
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(30 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-read:
				return
			case <-tick.C:
				r.say("%d packages compiled", count.Load())
			}
		}
	}()
	err := command.Run()
	writer.Close()
	<-done
	if err != nil {
		return fmt.Errorf("go %s in %s: %w\n%s", argv[0], dir, err, strings.Join(lines, "\n"))
	}
	return nil
}

func (r Request) say(format string, args ...any) {
	if r.Out != nil {
		fmt.Fprintf(r.Out, "         "+format+"\n", args...)
	}
}
