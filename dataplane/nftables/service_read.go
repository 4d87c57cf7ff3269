package nftables

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/service"
)

// ServiceReader reads back what the maps of this node have of single VIPs,
// however many there are. A change that is under way can be read halfway. It is
// for one goroutine, in the network namespace that it was made in.
type ServiceReader struct{ kernel *reader }

// NewServiceReader opens a socket to the kernel.
func NewServiceReader() (*ServiceReader, error) {
	kernel, err := openReader()
	if err != nil {
		return nil, err
	}
	return &ServiceReader{kernel}, nil
}

// Close closes the socket.
func (r *ServiceReader) Close() error {
	r.kernel.close()
	return nil
}

// Read follows a VIP through the maps as a packet's lookups do; nil if it is in
// none.
func (r *ServiceReader) Read(vip service.VIP) (*service.Held, error) {
	m := newServiceMaps(model.FamilyOf(vip.At.Addr()))
	key := vipKey(vip)
	class, ok, err := r.number(m.classes.Name, key)
	if err != nil || !ok {
		return nil, err
	}
	if class != classSpecial && class != classRestricted {
		answer, err := r.answer(&m, class, m.ids.Name, key)
		return &service.Held{Inside: answer, Outside: answer}, err
	}
	held := &service.Held{}
	if class, _, err = r.number(m.outside.Name, key); err == nil {
		held.Outside, err = r.answer(&m, class, m.ids.Name, key)
	}
	if err == nil {
		class, _, err = r.number(m.inside.Name, key)
	}
	if err == nil {
		held.Inside, err = r.answer(&m, class, m.insideIDs.Name, key)
	}
	return held, err
}

// answer is what a class says. A class that is not there is 0, and leads to
// none of no targets.
func (r *ServiceReader) answer(m *serviceMaps, class uint32, ids string, key []byte) (answer service.HeldAnswer, err error) {
	switch class {
	case classReject:
		answer.Do = service.Reject
		return answer, nil
	case classDrop:
		answer.Do = service.Drop
		return answer, nil
	}
	answer.Do = service.Forward
	pool, _, err := r.number(ids, key)
	if err != nil {
		return answer, err
	}
	for slot := range int(class & 0xffff) {
		value, ok, err := r.target(m, class, slotKey(pool, slot))
		if err != nil {
			return answer, err
		}
		target, readable := readTarget(value)
		if !ok || !readable {
			answer.Holes++
			continue
		}
		answer.Targets = append(answer.Targets, target)
	}
	return answer, nil
}

// target finds what a slot leads to, by the name of the target in a sticky pool.
func (r *ServiceReader) target(m *serviceMaps, class uint32, slot []byte) (value []byte, ok bool, err error) {
	if class>>16 < majorSticky {
		return r.element(m.slots.Name, slot)
	}
	name, ok, err := r.element(m.picks.Name, slot)
	if err != nil || !ok {
		return nil, ok, err
	}
	return r.element(m.targets.Name, name)
}

// readTarget is the inverse of targetValue.
func readTarget(value []byte) (netip.AddrPort, bool) {
	if len(value) < 4 {
		return netip.AddrPort{}, false
	}
	address, port := value[:len(value)-4], value[len(value)-4:]
	addr, ok := netip.AddrFromSlice(address)
	return netip.AddrPortFrom(addr, binary.BigEndian.Uint16(port)), ok
}

func (r *ServiceReader) number(in string, key []byte) (number uint32, ok bool, err error) {
	value, ok, err := r.element(in, key)
	if err != nil || !ok {
		return 0, ok, err
	}
	if len(value) != 4 {
		return 0, false, fmt.Errorf("read map %s: a value has %d bytes", in, len(value))
	}
	return binary.NativeEndian.Uint32(value), true, nil
}

// element asks for one element. That it is not there is no error, and neither
// that the map is not.
func (r *ServiceReader) element(in string, key []byte) (value []byte, ok bool, err error) {
	value, err = r.kernel.get(in, key)
	return value, value != nil, err
}
