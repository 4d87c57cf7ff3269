// Package ebpf does with BPF programs what a kernel lacks a module for: IPv4 in
// IPv4 (RFC 2003) at the traffic control hooks, with the packets on the wire
// that the kernel's own ipip device makes. It routes and filters nothing, and
// it decides nothing.
//
// What is ours: the veth pair that is the device, and the programs at its two ways
// and at the uplink's way in, which bear our name. They stay when the process ends.
// Foreign programs and filters on an uplink are not touched, and where a kernel needs
// the clsact qdisc for ours, it stays, as others may have come to use it.
//
// All of it is of the network namespace of the calling thread. Functions may be
// called concurrently, but those that change one device by one goroutine only.
package ebpf

//go:generate clang -target bpfel -mcpu=v2 -O2 -g -fdebug-compilation-dir=. -Wall -Wextra -Werror -c bpf/ipip.c -o ipip.o
//go:generate llvm-strip -g ipip.o
//go:generate sh -c "cat bpf/ipip.c bpf/kernel.h | sha256sum >ipip.o.source"

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"
)

// object is bpf/ipip.c, compiled. It is committed, so that only those who
// change the programs need clang.
//
//go:embed ipip.o
var object []byte

// version tells objects apart.
func version() string {
	sum := sha256.Sum256(object)
	return fmt.Sprintf("%x", sum[:6])
}

// Supported names the feature that the kernel lacks for the programs here, with
// EOPNOTSUPP. The answer is cached. It is not about the modules for veth devices
// and traffic control; without those, AttachIPIP says so.
func Supported() error {
	// The newest of what is used; it brings the rest.
	err := features.HaveProgramHelper(ebpf.SchedCLS, asm.FnRedirectNeigh)
	if errors.Is(err, ebpf.ErrNotSupported) {
		return fmt.Errorf("the kernel lacks the BPF helper bpf_redirect_neigh (Linux 5.10): %w", unix.EOPNOTSUPP)
	}
	if err != nil {
		return fmt.Errorf("ask the kernel for the BPF helper bpf_redirect_neigh (Linux 5.10): %w", err)
	}
	return nil
}

func readObject() (*ebpf.CollectionSpec, error) {
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
	if err != nil {
		return nil, fmt.Errorf("read the BPF object: %w", err)
	}
	return spec, nil
}

// load gives the programs to the kernel, with their constants.
func load(constants map[string]uint32) (*ebpf.Collection, error) {
	spec, err := readObject()
	if err != nil {
		return nil, err
	}
	for name, value := range constants {
		variable, ok := spec.Variables[name]
		if !ok {
			return nil, fmt.Errorf("the BPF object has no constant %s", name)
		}
		if err := variable.Set(value); err != nil {
			return nil, fmt.Errorf("set constant %s: %w", name, err)
		}
	}
	for name, program := range spec.Programs {
		program.Name = programName(":" + name)
	}
	programs, err := ebpf.NewCollection(spec)
	if errors.Is(err, unix.EPERM) {
		// Before Linux 5.11 maps count as locked memory of the process.
		limit := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
		if unix.Setrlimit(unix.RLIMIT_MEMLOCK, &limit) == nil {
			programs, err = ebpf.NewCollection(spec)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("load the BPF programs: %w", err)
	}
	return programs, nil
}
