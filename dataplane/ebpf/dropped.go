package ebpf

import (
	"encoding/binary"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	rtnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Dropped returns how many packets the programs of a device dropped since they
// were attached, by reason; bpf/ipip.c says what the reasons mean.
func Dropped(name string) (map[string]uint64, error) {
	dropped, err := readDropped(name)
	if err != nil {
		return nil, fmt.Errorf("read the counters of ipip device %s: %w", name, err)
	}
	return dropped, nil
}

func readDropped(name string) (map[string]uint64, error) {
	device, err := rtnl.LinkByName(name)
	if err != nil {
		return nil, linkError(name, err)
	}
	program, err := find(device, egress, encapName(name))
	if err != nil {
		return nil, err
	}
	if program == 0 {
		return nil, fmt.Errorf("find program %s: %w", encapName(name), unix.ENOENT)
	}
	spec, err := readObject()
	if err != nil {
		return nil, err
	}
	variable := spec.Variables["dropped"]
	values, err := readMap(program, variable.SectionName)
	if err != nil {
		return nil, err
	}
	return parseDropped(variable, values)
}

func parseDropped(variable *ebpf.VariableSpec, values []byte) (map[string]uint64, error) {
	dropped := map[string]uint64{}
	for _, member := range variable.Type.Type.(*btf.Struct).Members {
		at := variable.Offset + member.Offset.Bytes()
		if int(at)+8 > len(values) {
			return nil, fmt.Errorf("the counters are of another version: %w", unix.EPROTO)
		}
		dropped[member.Name] = binary.NativeEndian.Uint64(values[at:])
	}
	return dropped, nil
}

// readMap returns the global variables of a section of a program that is in
// the kernel.
func readMap(id ebpf.ProgramID, section string) ([]byte, error) {
	program, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return nil, fmt.Errorf("open program %d: %w", id, err)
	}
	defer program.Close()
	info, err := program.Info()
	if err != nil {
		return nil, fmt.Errorf("ask about program %d: %w", id, err)
	}
	maps, _ := info.MapIDs()
	for _, id := range maps {
		values, err := readVariables(id, section)
		if err != nil || values != nil {
			return values, err
		}
	}
	return nil, fmt.Errorf("find the map of section %s: %w", section, unix.ENOENT)
}

// readVariables returns what a map holds, or nil if it is not of the section.
func readVariables(id ebpf.MapID, section string) ([]byte, error) {
	variables, err := ebpf.NewMapFromID(id)
	if err != nil {
		return nil, fmt.Errorf("open map %d: %w", id, err)
	}
	defer variables.Close()
	info, err := variables.Info()
	if err != nil {
		return nil, fmt.Errorf("ask about map %d: %w", id, err)
	}
	if info.Name != section {
		return nil, nil
	}
	values, err := variables.LookupBytes(uint32(0))
	if err != nil {
		return nil, fmt.Errorf("read map %d: %w", id, err)
	}
	return values, nil
}
