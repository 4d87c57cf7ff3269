package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fairlead-net/fairlead/lab/build"
	"github.com/fairlead-net/fairlead/lab/image"
	"github.com/fairlead-net/fairlead/lab/world"
)

// Images that every node of a lab has, under the names that Kubernetes 1.36's
// own tests and manifests use.
const (
	FairleadImage = "ghcr.io/fairlead-net/fairlead:dev"
	AgnhostImage  = "registry.k8s.io/e2e-test-images/agnhost:2.63.0"
	BusyboxImage  = "registry.k8s.io/e2e-test-images/busybox:1.37.0-1"
	corednsImage  = "registry.k8s.io/coredns/coredns:v1.14.2"
	pauseImage    = "registry.k8s.io/pause:3.10.2"
)

// busyboxPath is where Debian's busybox-static has it.
const busyboxPath = "/usr/bin/busybox"

// Shell is a layer with busybox, by the names of all its programs, and the
// users root and nobody.
func Shell(ctx context.Context) (image.Layer, error) {
	applets, err := exec.CommandContext(ctx, busyboxPath, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("listing the applets of busybox: %w", err)
	}
	shell := image.Layer{
		{Path: "/bin/busybox", Source: busyboxPath},
		{Path: "/tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777},
		{Path: "/root", Mode: fs.ModeDir | 0o700},
		{Path: "/etc/passwd", Content: []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"), Mode: 0o644},
		{Path: "/etc/group", Content: []byte("root:x:0:\nnogroup:x:65534:\n"), Mode: 0o644},
	}
	for _, applet := range strings.Fields(string(applets)) {
		if applet != "busybox" {
			shell = append(shell, image.File{Path: "/bin/" + applet, Link: "busybox"})
		}
	}
	return shell, nil
}

// images describes the images. Those with a shell share it as a layer.
func images(programs build.Programs, shell image.Layer) []image.Image {
	program := func(path, source string) image.Layer { return image.Layer{{Path: path, Source: source}} }
	kube := func(name string) string { return filepath.Join(programs.Kube, name) }
	path := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	list := []image.Image{
		{Name: pauseImage, Layers: []image.Layer{program("/pause", kube("pause"))}, Entrypoint: []string{"/pause"}, User: "65535:65535"},
		{Name: BusyboxImage, Layers: []image.Layer{shell}, Command: []string{"sh"}, Env: path},
		{Name: "docker.io/library/busybox:latest", Layers: []image.Layer{shell}, Command: []string{"sh"}, Env: path},
		{
			Name: AgnhostImage, Layers: []image.Layer{shell, program("/agnhost", kube("agnhost"))},
			Entrypoint: []string{"/agnhost"}, Command: []string{"pause"}, Env: path,
		},
		{Name: corednsImage, Layers: []image.Layer{program("/coredns", kube("coredns"))}, Entrypoint: []string{"/coredns"}},
		Fairlead(FairleadImage, runtime.GOARCH, programs.Fairlead, programs.FairleadCNI),
	}
	for i := range list {
		list[i].Architecture = runtime.GOARCH
	}
	return list
}

// Fairlead describes the image of Fairlead for an architecture: the program and,
// beside it, the CNI plugin that it installs.
func Fairlead(name, architecture, program, plugin string) image.Image {
	return image.Image{
		Name: name, Architecture: architecture, Entrypoint: []string{"/fairlead"},
		Layers: []image.Layer{{{Path: "/fairlead", Source: program}, {Path: "/fairlead-cni", Source: plugin}}},
	}
}

// Binaries is the directory of the programs of Kubernetes that the lab runs.
func (l *Lab) Binaries() string { return l.state.Binaries }

// imagesPath is the archive of the images of a lab, kept for nodes that are
// added.
func (l *Lab) imagesPath() string { return filepath.Join(l.world.Disk, "images.tar") }

// writeImages writes that archive.
func (l *Lab) writeImages(ctx context.Context, programs build.Programs) error {
	shell, err := Shell(ctx)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(l.world.Disk, 0o755); err != nil {
		return fmt.Errorf("writing images: %w", err)
	}
	file, err := os.Create(l.imagesPath())
	if err != nil {
		return fmt.Errorf("writing images: %w", err)
	}
	defer file.Close()
	return image.Write(file, images(programs, shell)...)
}

// BuildImage builds Fairlead's image under another name, of a commit of the
// checkout if one is given, and loads it into all nodes. If manifest is not
// empty, it writes there what that commit deploys, with this image. A commit
// that is not there is told, and the checkout as it is is built instead.
func (l *Lab) BuildImage(ctx context.Context, name, revision, manifest string, out io.Writer) error {
	request := build.Request{Source: l.state.Config.Source, Out: out}
	programs, source, err := request.Fairlead(ctx, revision)
	if errors.Is(err, build.ErrNoRevision) {
		fmt.Fprintf(out, "%v; building the checkout as it is\n", err)
		programs, source, err = request.Fairlead(ctx, "")
	}
	if err != nil {
		return err
	}
	if manifest != "" {
		text, err := os.ReadFile(filepath.Join(source, "deploy", "fairlead.yaml"))
		if err == nil {
			err = os.WriteFile(manifest, bytes.ReplaceAll(text, []byte("image: "+FairleadImage), []byte("image: "+name)), 0o644)
		}
		if err != nil {
			return fmt.Errorf("writing the manifest: %w", err)
		}
	}
	file, err := os.CreateTemp(l.world.Disk, "image-*.tar")
	if err != nil {
		return fmt.Errorf("writing images: %w", err)
	}
	defer os.Remove(file.Name())
	defer file.Close()
	if err := image.Write(file, Fairlead(name, runtime.GOARCH, programs.Fairlead, programs.FairleadCNI)); err != nil {
		return err
	}
	return l.LoadImages(ctx, file.Name())
}

// LoadImages imports an archive of images, as docker save or this program
// writes them, into all nodes.
func (l *Lab) LoadImages(ctx context.Context, archive string) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, node := range l.state.Nodes {
		group.Go(func() error { return l.loadImages(ctx, node.Name, archive) })
	}
	return group.Wait()
}

func (l *Lab) loadImages(ctx context.Context, node, archive string) error {
	file, err := os.Open(archive)
	if err != nil {
		return fmt.Errorf("loading images: %w", err)
	}
	defer file.Close()
	if err := l.waitContainerd(ctx, node); err != nil {
		return err
	}
	command := l.world.Command(ctx, node, binDir+"/ctr", "--namespace=k8s.io", "images", "import", "--local", "-")
	command.Stdin = file
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("loading images into %s: %w\n%s", node, err, output)
	}
	return nil
}

// waitContainerd waits until containerd listens on a node, which has just
// booted. The socket is in another mount namespace, where nothing can be
// watched for.
func (l *Lab) waitContainerd(ctx context.Context, node string) error {
	machines, err := l.world.Machines()
	if err != nil {
		return err
	}
	at := slices.IndexFunc(machines, func(m world.MachineState) bool { return m.Name == node })
	if at < 0 || !machines[at].Running {
		return fmt.Errorf("waiting for containerd on %s: %w", node, world.ErrNotRunning)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		socket, err := net.Dial("unix", fmt.Sprintf("/proc/%d/root/run/containerd/containerd.sock", machines[at].PID))
		if err == nil {
			return socket.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for containerd on %s: %w%s", node, err, l.tail(node, "containerd"))
		case <-tick.C:
		}
	}
}
