package cni

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"unsafe"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"
)

// LoopbackName is the name of the plugin that runtimes call for each pod beside
// that of the network (containerd, go-cni's WithLoNetwork). Nodes that were not
// set up by kubeadm's packages may lack it.
const LoopbackName = "loopback"

// Loopback is the body of that plugin: it sets lo up, to which the kernel then
// gives its addresses.
func Loopback() skel.CNIFuncs {
	nothing := func(*skel.CmdArgs) error { return nil }
	return skel.CNIFuncs{
		Add:    addLoopback,
		Del:    nothing, // lo goes with its namespace
		Check:  func(args *skel.CmdArgs) error { return checkLoopback(args.Netns) },
		GC:     nothing,
		Status: nothing,
	}
}

func addLoopback(args *skel.CmdArgs) error {
	conf, err := configOf(args)
	if err != nil {
		return err
	}
	if err := inNetns(args.Netns, setLoopbackUp); err != nil {
		return types.NewError(types.ErrInternal, "cannot set lo up", err.Error())
	}
	of := 0
	return types.PrintResult(&types100.Result{
		CNIVersion: types100.ImplementedSpecVersion,
		Interfaces: []*types100.Interface{{Name: "lo", Mac: "00:00:00:00:00:00", Sandbox: args.Netns}},
		IPs: []*types100.IPConfig{
			{Interface: &of, Address: net.IPNet{IP: net.IPv4(127, 0, 0, 1), Mask: net.CIDRMask(8, 32)}},
			{Interface: &of, Address: net.IPNet{IP: net.IPv6loopback, Mask: net.CIDRMask(128, 128)}},
		},
	}, conf.CNIVersion)
}

func checkLoopback(netns string) error {
	return inNetns(netns, func() error {
		lo, err := net.InterfaceByName("lo")
		if err != nil {
			return fmt.Errorf("find lo: %w", err)
		}
		if lo.Flags&net.FlagUp == 0 {
			return errors.New("lo is down")
		}
		return nil
	})
}

// inNetns runs f in a network namespace, on a thread that is not used again:
// that of the plugin has to stay where it was.
func inNetns(path string, f func() error) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open network namespace: %w", err)
	}
	defer file.Close()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter network namespace %s: %w", path, err)
			return
		}
		done <- f()
	}()
	return <-done
}

// setLoopbackUp speaks the old interface of ioctls (netdevice(7)): a netlink
// library would make the plugin twice as large.
func setLoopbackUp() error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		socket, err = unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	}
	if err != nil {
		return fmt.Errorf("open socket: %w", err)
	}
	defer unix.Close(socket)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("name lo: %w", err)
	}
	if err := ioctl(socket, unix.SIOCGIFFLAGS, request); err != nil {
		return fmt.Errorf("read the flags of lo: %w", err)
	}
	request.SetUint16(request.Uint16() | unix.IFF_UP)
	if err := ioctl(socket, unix.SIOCSIFFLAGS, request); err != nil {
		return fmt.Errorf("set the flags of lo: %w", err)
	}
	return nil
}

func ioctl(socket int, command uintptr, request *unix.Ifreq) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(socket), command, uintptr(unsafe.Pointer(request)))
	if errno != 0 {
		return errno
	}
	return nil
}
