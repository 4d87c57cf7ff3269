package agent

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/fairlead-net/fairlead/ipam"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/whole"
)

// remains are the pairs of an earlier life.
type remains struct {
	found      []remain
	unlabelled []string  // the agent ended while it made them, so nobody uses them
	strange    []strange // labelled in a way that is not understood; left alone
}

// remain is a pair as its alias tells.
type remain struct {
	*model.Attachment
	ports   bool // it has host ports, which only the journal tells
	grouped bool // it is in the group of pods' links
}

// strange is a link that looks like a pod's.
type strange struct {
	device    string
	err       error
	addresses []netip.Addr // as far as can be told
}

func findRemains() (r remains, err error) {
	all, err := whole.List(netlink.LinkList)
	if err != nil {
		return r, fmt.Errorf("list the pods' links: %w", err)
	}
	for _, link := range all {
		name, label := link.Attrs().Name, link.Attrs().Alias
		if link.Type() != "veth" || !isPodDevice(name) {
			continue
		}
		attachment, ports, err := parseAlias(name, label)
		switch {
		case label == "":
			r.unlabelled = append(r.unlabelled, name)
		case err != nil:
			addrs, listErr := neighborsOn(link)
			r.strange = append(r.strange, strange{name, errors.Join(err, listErr), addrs})
		default:
			r.found = append(r.found, remain{attachment, ports, link.Attrs().Group == model.PodGroup})
		}
	}
	return r, nil
}

// neighborsOn are the permanent neighbours on a link: the pod's addresses.
func neighborsOn(link netlink.Link) (addrs []netip.Addr, err error) {
	found, err := whole.List(func() ([]netlink.Neigh, error) {
		return netlink.NeighList(link.Attrs().Index, netlink.FAMILY_ALL)
	})
	for _, n := range found {
		if addr, ok := netip.AddrFromSlice(n.IP); ok && n.State == netlink.NUD_PERMANENT {
			addrs = append(addrs, addr.Unmap())
		}
	}
	return addrs, err
}

// takeOver makes its own the pods that an earlier agent has connected, before
// any other is: what the kernel has, with what the journal adds to that. What
// the journal alone has is free again. What cannot be taken over is left as it
// is. Then it carries out the DELs that wait.
func (a *attacher) takeOver(now time.Time) error {
	remains, err := findRemains()
	if err != nil {
		return err
	}
	for _, device := range remains.unlabelled {
		a.log.Warn("removing a link of no pod", "device", device)
		if err := removeDevice(device); err != nil {
			return err
		}
	}
	rebooted := a.rebooted()
	a.booted = rebooted
	if err := a.restore(now, rebooted); err != nil {
		return err
	}
	freed := now
	if rebooted {
		// All pods went at once, long ago, and all want to come back.
		freed = now.Add(-ipam.Cooldown)
	}
	for held := range a.addresses.All() {
		if !slices.ContainsFunc(remains.found, func(r remain) bool {
			return r.AttachmentKey == held.AttachmentKey && slices.Equal(r.Addresses, held.Addresses)
		}) {
			a.addresses.Release(held.AttachmentKey, freed)
		}
	}
	for _, r := range remains.found {
		if r.AttachmentKey == endpointKey { // its other end went with the agent that had it
			if err := removeDevice(r.Device); err != nil {
				return err
			}
			continue
		}
		if err := a.adopt(r, now); err != nil {
			remains.strange = append(remains.strange, strange{r.Device, err, nil})
		}
	}
	a.strange = remains.strange
	a.journal.rewrite()
	a.addresses.Journal = a.journal
	if rebooted {
		a.noteBoot()
	}
	a.look()
	return a.carryOut()
}

// restore reads the journal.
func (a *attacher) restore(now time.Time, rebooted bool) error {
	records, damaged, err := readJournal(a.journal.path)
	if err != nil {
		a.log.Error("the journal of addresses cannot be read; the pods' links tell what is in use", "error", err)
	}
	if len(damaged) > 0 {
		a.log.Error("the journal of addresses is damaged; what is whole is used", "path", a.journal.path,
			"whole", len(records), "damaged", len(damaged), "lines", damaged[:min(len(damaged), 20)])
	}
	for _, r := range records {
		if rebooted {
			r.At = time.Time{}
		}
		a.addresses.Restore(r, now)
	}
	return nil
}

// adopt makes a pod of an earlier agent this one's.
func (a *attacher) adopt(r remain, now time.Time) error {
	attachment := a.addresses.Held(r.AttachmentKey)
	if attachment == nil {
		attachment = r.Attachment
		if err := a.addresses.Adopt(attachment, now); err != nil {
			return err
		}
	}
	if r.ports && len(attachment.HostPorts) == 0 {
		without := *attachment
		without.PortsLost = true // so that the link goes on telling
		attachment = &without
		a.portless = append(a.portless, attachment)
	}
	if !r.grouped {
		if err := netlink.LinkSetGroup(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: r.Device}}, model.PodGroup); err != nil {
			return fmt.Errorf("set the group of %s: %w", r.Device, err)
		}
	}
	a.feed.Edit(func(s *model.Snapshot) {
		s.Attachments = s.Attachments.With(attachment.AttachmentKey, attachment)
	})
	return nil
}

// rebooted tells whether the node was started since an agent took over. The
// marker is on a tmpfs; where that is not so, and where the node is a container,
// which has the boot of its host, one of the two tells.
func (a *attacher) rebooted() bool {
	noted, err := os.ReadFile(a.bootMarker)
	return err != nil || !bytes.Equal(noted, bootID())
}

func (a *attacher) noteBoot() {
	if err := os.WriteFile(a.bootMarker, bootID(), 0o600); err != nil {
		a.log.Warn("the next start will look like that of the node", "error", err)
	}
}

func bootID() []byte {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return []byte("unknown")
	}
	return id
}

// strangers are the links that were left alone and are still there, in words.
func (a *attacher) strangers() (problems []model.Problem, addrs []netip.Addr) {
	a.strange = slices.DeleteFunc(a.strange, func(s strange) bool {
		_, err := netlink.LinkByName(s.device)
		return errors.As(err, new(netlink.LinkNotFoundError))
	})
	for _, s := range a.strange {
		addrs = append(addrs, s.addresses...)
		problems = append(problems, model.Problem{
			Kind: "Node", Name: a.node, Field: "interface " + s.device, Reason: "StrangeLink",
			Message: fmt.Sprintf("it looks like a pod's, but it cannot be told whose it is (%v), so it is left alone and its addresses %v are not used", s.err, s.addresses),
			Remedy:  "delete the pod that has this address, or the interface: ip link delete " + s.device,
		})
	}
	return problems, addrs
}

// unported are the pods that run without their host ports, in words.
func (a *attacher) unported() (problems []model.Problem) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.portless = slices.DeleteFunc(a.portless, func(was *model.Attachment) bool {
		held := a.addresses.Held(was.AttachmentKey)
		return held == nil || len(held.HostPorts) > 0
	})
	for _, attachment := range a.portless {
		problems = append(problems, model.Problem{
			Kind: "Pod", Namespace: attachment.Pod.Namespace, Name: attachment.Pod.Name, Field: "hostPort", Reason: "HostPortsLost",
			Message: "its host ports do not work: the journal that had them was lost on node " + a.node,
			Remedy:  "delete the pod, so that it is made anew",
		})
	}
	return problems
}
