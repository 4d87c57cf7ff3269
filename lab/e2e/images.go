package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/fairlead-net/fairlead/lab"
	"github.com/fairlead-net/fairlead/lab/image"
)

// Images that the tests name, besides those that every lab has.
const (
	nginxImage      = "registry.k8s.io/e2e-test-images/nginx:1.15-4"
	outOfOrderImage = "registry.k8s.io/e2e-test-images/regression-issue-74839:1.4"
	iptablesImage   = "registry.k8s.io/build-image/distroless-iptables:v0.9.6"
	glibcImage      = "registry.k8s.io/e2e-test-images/glibc-dns-testing:2.0.0"
)

// tools are Debian's programs of which upstream's agnhost has a build, too.
// Busybox has most of them, but with other options, and those of it that look
// up names do not work beside a C library: it is linked statically.
var tools = []string{
	"/bin/bash", "/bin/dash", "/usr/bin/curl", "/usr/bin/dig", "/usr/bin/getent", "/usr/bin/nslookup", "/usr/bin/ss",
	"/usr/bin/wget", "/usr/sbin/conntrack", "/usr/sbin/ip", netcat,
}

// netcat is OpenBSD's; /usr/bin/nc may lead to another.
const netcat = "/bin/nc.openbsd"

// toolLayer is a layer of the tools, or says what to install.
func toolLayer() (image.Layer, error) {
	layer, err := image.Programs(tools...)
	if err != nil {
		return nil, fmt.Errorf("%w; apt-get install --no-install-recommends bash dash curl bind9-dnsutils iproute2 wget conntrack netcat-openbsd", err)
	}
	return append(layer,
		image.File{Path: "/usr/bin/nc", Link: netcat},
		image.File{Path: "/bin/sh", Link: "dash"}, // that of busybox prefers busybox's programs
		image.File{Path: "/etc/nsswitch.conf", Content: []byte("hosts: files dns\n"), Mode: 0o644},
	), nil
}

// images describes the images, under the names that upstream's tests use.
func images(ctx context.Context, l *lab.Lab, s suite) ([]image.Image, error) {
	shell, err := lab.Shell(ctx)
	if err != nil {
		return nil, err
	}
	agnhost := image.Layer{
		{Path: "/agnhost", Source: filepath.Join(l.Binaries(), "agnhost")},
		{Path: "/agnhost-2", Link: "agnhost"},
		{Path: "/localhost.crt", Source: s.Certificate, Mode: 0o644},
		{Path: "/localhost.key", Source: s.Key, Mode: 0o644},
		{Path: "/uploads", Mode: os.ModeDir | 0o755},
	}
	if s.coredns != "" { // upstream's has one, too
		agnhost = append(agnhost, image.File{Path: "/coredns", Source: s.coredns})
	}
	path := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	list := []image.Image{
		{Name: lab.AgnhostImage, Layers: []image.Layer{shell, s.tools, agnhost}, Entrypoint: []string{"/agnhost"}, Command: []string{"pause"}, Env: path},
		// Asked for a page or not at all: any web server on port 80 will do.
		{Name: nginxImage, Layers: []image.Layer{shell, s.tools, agnhost}, Command: []string{"/agnhost", "netexec", "--http-port=80", "--udp-port=-1"}, Env: path},
		{Name: outOfOrderImage, Layers: []image.Layer{{{Path: "/regression-issue-74839", Source: s.OutOfOrder}}}, Entrypoint: []string{"/regression-issue-74839"}},
		// Another resolver library than that of upstream's agnhost. Here both have Debian's.
		{Name: glibcImage, Layers: []image.Layer{shell, s.tools}, Env: path},
		// Used for its conntrack.
		{Name: iptablesImage, Layers: []image.Layer{shell, s.tools}, Env: path},
	}
	for i := range list {
		list[i].Architecture = runtime.GOARCH
	}
	return list, nil
}

// loadImages writes the images and loads them into all nodes of the lab.
func loadImages(ctx context.Context, l *lab.Lab, s suite) error {
	list, err := images(ctx, l, s)
	if err != nil {
		return err
	}
	file, err := os.CreateTemp("", "fairlead-e2e-*.tar")
	if err != nil {
		return fmt.Errorf("writing images: %w", err)
	}
	defer os.Remove(file.Name())
	defer file.Close()
	if err := image.Write(file, list...); err != nil {
		return err
	}
	return l.LoadImages(ctx, file.Name())
}
