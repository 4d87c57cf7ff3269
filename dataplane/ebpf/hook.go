package ebpf

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	tcx "github.com/cilium/ebpf/link"
	rtnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/whole"
)

// way is a direction of a network interface's packets, on which programs are put at
// one of two hooks. The chain tcx (Linux 6.6) is there by itself. The qdisc clsact of
// older kernels has to be added first, for which the kernel puts noop_qdisc in the
// place of the interface's own queues until all processors have noticed
// (qdisc_graft, dev_deactivate): for 4 to 20 ms what the node sends by it is lost.
type way struct {
	name   string
	chain  ebpf.AttachType
	parent uint32
}

var (
	ingress = way{"tcx/ingress", ebpf.AttachTCXIngress, rtnl.HANDLE_MIN_INGRESS}
	egress  = way{"tcx/egress", ebpf.AttachTCXEgress, rtnl.HANDLE_MIN_EGRESS}
)

// put puts a program on one way of a network interface, in the place of the one of
// this name that is there, without a packet between. Programs of others come after
// it, as it knows which packets are its own.
func put(on rtnl.Link, w way, name string, program *ebpf.Program) error {
	was, _, err := chained(on, w, name)
	if errors.Is(err, errors.ErrUnsupported) {
		return putFilter(on, w.parent, name, program)
	}
	if err != nil {
		return err
	}
	options := tcx.RawAttachProgramOptions{
		Target: on.Attrs().Index, Program: program, Attach: w.chain, Anchor: tcx.Head(),
	}
	if was != nil {
		defer was.Close()
		options.Anchor = tcx.ReplaceProgram(was)
	}
	if err := tcx.RawAttachProgram(options); err != nil {
		return fmt.Errorf("add program %s to %s: %w", name, w.of(on), err)
	}
	// An earlier version had it there on every kernel.
	return removeFilter(on, w.parent, name)
}

// find returns the program of a name on one way of a network interface; 0 if there
// is none. If there is one at each hook, they are of two versions, of which the earlier
// one did not see what the other had left in the chain: none is of use then.
func find(on rtnl.Link, w way, name string) (ebpf.ProgramID, error) {
	program, id, err := chained(on, w, name)
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return 0, err
	}
	if program != nil {
		if err := program.Close(); err != nil {
			return 0, err
		}
	}
	filter, err := findFilter(on, w.parent, name)
	switch {
	case err != nil:
		return 0, err
	case filter == nil:
		return id, nil
	case id != 0:
		return 0, nil
	}
	return ebpf.ProgramID(filter.Id), nil
}

// remove removes the programs of a name from the ways in of all network interfaces
// but one.
func remove(name string, except int) error {
	var links []rtnl.Link
	err := whole.Read(func() (err error) {
		links, err = rtnl.LinkList()
		return err
	})
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	for _, on := range links {
		if on.Attrs().Index == except {
			continue
		}
		if err := unchain(on, ingress, name); err != nil {
			return err
		}
		if err := removeFilter(on, ingress.parent, name); err != nil {
			return err
		}
	}
	return nil
}

// unchain removes the program of a name, if it is there.
func unchain(on rtnl.Link, w way, name string) error {
	program, _, err := chained(on, w, name)
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	if program == nil {
		return err
	}
	defer program.Close()
	err = tcx.RawDetachProgram(tcx.RawDetachProgramOptions{Target: on.Attrs().Index, Program: program, Attach: w.chain})
	if err != nil && !gone(err) {
		return fmt.Errorf("remove program %s from %s: %w", name, w.of(on), err)
	}
	return nil
}

// chained returns the program of a name in the chain tcx, which the caller closes, or
// nil. A kernel without the chain makes that errors.ErrUnsupported.
func chained(on rtnl.Link, w way, name string) (*ebpf.Program, ebpf.ProgramID, error) {
	there, err := programsOf(on, w)
	switch {
	case errors.Is(err, unix.EINVAL), errors.Is(err, ebpf.ErrNotSupported):
		return nil, 0, errors.ErrUnsupported
	case gone(err):
		return nil, 0, nil
	case err != nil:
		return nil, 0, fmt.Errorf("list the programs of %s: %w", w.of(on), err)
	}
	for _, attached := range there.Programs {
		program, err := named(attached.ID, programName(name))
		if err != nil {
			return nil, 0, fmt.Errorf("look at program %d of %s: %w", attached.ID, w.of(on), err)
		}
		if program != nil {
			return program, attached.ID, nil
		}
	}
	return nil, 0, nil
}

// programsOf lists the chain, again if one was added between its count and its list.
func programsOf(on rtnl.Link, w way) (there *tcx.QueryResult, err error) {
	const attempts = 20
	for range attempts {
		there, err = tcx.QueryPrograms(tcx.QueryOptions{Target: on.Attrs().Index, Attach: w.chain})
		if !errors.Is(err, unix.ENOSPC) {
			break
		}
	}
	return there, err
}

// named returns a program if it has the name, or nil.
func named(id ebpf.ProgramID, name string) (*ebpf.Program, error) {
	program, err := ebpf.NewProgramFromID(id)
	if gone(err) { // meanwhile
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	info, err := program.Info()
	if err == nil && info.Name == name {
		return program, nil
	}
	return nil, errors.Join(err, program.Close())
}

func (w way) of(on rtnl.Link) string { return w.name + " of " + on.Attrs().Name }

// programName is that in the kernel, which takes 15 bytes, of the program that a name
// DEVICE:PROGRAM is about. There is one device in a network namespace.
func programName(name string) string {
	_, program, _ := strings.Cut(name, ":")
	return "fairlead_" + program
}
