// Package antispoof plans whose packets pods may send: only those with the
// pod's own addresses and MAC, through the pod's own link. It is pure.
package antispoof

import (
	"fmt"
	"net/netip"

	"github.com/fairlead-net/fairlead/model"
)

// Plan says what may come from pods; all else that comes from an interface of
// model.PodGroup is dropped. It is immutable.
type Plan struct {
	Sources model.Map[Source, struct{}]

	attachments model.Map[model.AttachmentKey, *model.Attachment] // that it was made from
}

// Source is what a packet of a pod comes with.
type Source struct {
	Device  string // host side of the pod's link
	MAC     model.MAC
	Address netip.Addr // invalid: link-local or none, in neighbour and listener discovery (RFC 4861, RFC 3810)
}

func (s Source) String() string {
	if !s.Address.IsValid() {
		return fmt.Sprintf("%s %s neighbour discovery", s.Device, s.MAC)
	}
	return fmt.Sprintf("%s %s %s", s.Device, s.MAC, s.Address)
}

// Compute plans the sources of one node's pods. prev is the last plan or nil. A
// pod whose MAC is not known may send nothing.
func Compute(prev *Plan, snapshot *model.Snapshot) *Plan {
	next := &Plan{}
	if prev != nil {
		*next = *prev
	}
	// A device is that of one attachment, so that no other has its sources.
	for change := range model.Diff(next.attachments, snapshot.Attachments) {
		for _, source := range sources(change.Old) {
			next.Sources = next.Sources.Without(source)
		}
		for _, source := range sources(change.New) {
			next.Sources = next.Sources.With(source, struct{}{})
		}
	}
	next.attachments = snapshot.Attachments
	return next
}

// sources are none of no attachment.
func sources(of *model.Attachment) (all []Source) {
	if of == nil || of.MAC == (model.MAC{}) {
		return nil
	}
	for _, addr := range of.Addresses {
		all = append(all, Source{of.Device, of.MAC, addr})
		if addr.Is6() {
			all = append(all, Source{Device: of.Device, MAC: of.MAC})
		}
	}
	return all
}
