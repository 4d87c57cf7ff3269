package model

// A change of tunnels takes three steps, so that nothing is lost though nodes
// hear of it at different moments: the tunnels to come are there first and
// receive; then they are sent through; then those of before go.

// Follow makes the configuration that of the cluster. What tunnels it changes
// are Coming, and in use after Arrive. Other nodes may use by now what was to come
// here and does not any more: it is received for a while.
func (s *Snapshot) Follow(network *Network) {
	if s.Network == nil && s.Former != nil && !s.Former.changesTunnels(&network.Routing) {
		s.Former = nil // of an earlier process, and the same
	}
	if s.Coming != nil && s.Coming.changesTunnels(&network.Routing) {
		s.Former = s.Coming
	}
	if s.Network == nil || !s.Network.changesTunnels(&network.Routing) {
		s.Network, s.Coming = network, nil
		return
	}
	next := *network
	next.Routing = s.Network.Routing
	s.Network, s.Coming = &next, &network.Routing
}

// Follows tells whether the configuration is this one, or will be.
func (s *Snapshot) Follows(network *Network) bool {
	if s.Network == nil || s.Coming == nil {
		return s.Network != nil && s.Network.Equal(network)
	}
	next := *s.Network
	next.Routing = *s.Coming
	return next.Equal(network)
}

// Arrive makes use of what is Coming; what was in use is Former.
func (s *Snapshot) Arrive() {
	if s.Coming == nil {
		return
	}
	next := *s.Network
	former := next.Routing
	next.Routing = *s.Coming
	s.Network, s.Former, s.Coming = &next, &former, nil
}

func (r *Routing) changesTunnels(other *Routing) bool {
	changed := *other
	changed.MTU, changed.DirectRouting = r.MTU, r.DirectRouting
	return *r != changed
}

// TunnelPorts are the UDP ports of the tunnels in use, of the former and of the coming
// ones; 0: none.
func (s *Snapshot) TunnelPorts() (ports [6]uint16) {
	var routings []*Routing
	if s.Network != nil {
		routings = append(routings, &s.Network.Routing)
	}
	for i, routing := range append(routings, s.Former, s.Coming) {
		if routing == nil {
			continue
		}
		switch routing.Backend {
		case BackendUDP:
			ports[2*i] = routing.UDPPort
		case BackendVXLAN, BackendIPIP:
			ports[2*i+1] = routing.VXLANPort
		}
	}
	return ports
}
