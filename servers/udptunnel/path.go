package udptunnel

import (
	"io"

	"github.com/fairlead-net/fairlead/model"
)

// path is all that a packet needs. It is immutable, but for what the peers
// know of themselves.
type path struct {
	device  *device
	current [len(model.Families)]*socket // what is sent from, and whose port is sent to; nil: none
	other   [len(model.Families)]*socket // listened to while nodes change their port; nil: none
	peers   *peers
}

// knows tells whether packets of a family may come from this port.
func (p *path) knows(family int, port uint16) bool {
	current, other := p.current[family], p.other[family]
	return current != nil && port == current.at.Port() || other != nil && port == other.at.Port()
}

// files are all that the path reads from.
func (p *path) files() map[io.Closer]struct{} {
	files := map[io.Closer]struct{}{}
	if p == nil {
		return files
	}
	files[p.device.file] = struct{}{}
	for _, s := range p.sockets() {
		files[s.file] = struct{}{}
	}
	return files
}

func (p *path) sockets() (sockets []*socket) {
	for family := range p.current {
		for _, s := range []*socket{p.current[family], p.other[family]} {
			if s != nil {
				sockets = append(sockets, s)
			}
		}
	}
	return sockets
}
