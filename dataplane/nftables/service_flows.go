package nftables

import (
	"net/netip"
	"slices"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/service"
)

// servedFlows say which connections of UDP are with endpoints that serve. Those
// of TCP end by themselves; those of UDP would go on for as long as somebody
// sends, to an endpoint that is gone (kubernetes#139628, kubernetes#141371), or
// to nobody though there is an endpoint now (kubernetes#105657).
type servedFlows struct {
	frontends model.Map[service.VIP, *service.Frontend]
	serving   model.Map[service.Port, *service.Serving]
	cidrs     model.Map[netip.Prefix, struct{}]
	gone      map[service.VIP]struct{} // that were there lately
}

// become is what there is after a change, and whether flows may be stale by it.
// What only moves endpoints nearer, or is a matter of policy, cuts nobody off.
func (s *servedFlows) become(plan *service.Plan) (next servedFlows, changed bool) {
	next = servedFlows{frontends: plan.Frontends, serving: plan.Serving, cidrs: plan.CIDRs, gone: map[service.VIP]struct{}{}}
	for vip := range s.gone {
		next.gone[vip], changed = struct{}{}, true
	}
	for change := range model.Diff(s.frontends, next.frontends) {
		if change.Key.Protocol != model.UDP {
			continue
		}
		if !change.Has {
			next.gone[change.Key] = struct{}{}
		}
		changed = changed || !change.Had || !change.Has || forwarding(change.Old) != forwarding(change.New) || change.Old.Port != change.New.Port
	}
	for change := range model.Diff(s.serving, next.serving) {
		// Who comes makes nothing stale: flows to nobody are those of a frontend.
		if changed = changed || change.Had && (!change.Has || lost(change.Old, change.New)); changed {
			break
		}
	}
	return next, changed
}

// lost tells whether a target serves no more.
func lost(old, next *service.Serving) bool {
	return slices.ContainsFunc(old.Targets, func(target netip.AddrPort) bool { return !next.Has(target) })
}

func forwarding(f *service.Frontend) bool {
	return f.Inside.Do == service.Forward || f.Outside.Do == service.Forward
}

// stale tells whether a flow of UDP to an address, that was led to another one
// or to that itself, is to be forgotten; not ok: it is no Service's.
func (s *servedFlows) stale(to, led netip.AddrPort) (stale, ok bool) {
	vip := service.VIP{Protocol: model.UDP, At: to}
	if frontend, ok := s.frontends.Get(vip); ok {
		if led == to {
			return forwarding(frontend), true
		}
		serving, ok := s.serving.Get(frontend.Port)
		return !ok || !serving.Has(led), true
	}
	if _, gone := s.gone[vip]; gone {
		return led != to, led != to
	}
	for cidr := range s.cidrs.All() {
		if led != to && cidr.Contains(to.Addr()) {
			return true, true // it went while nobody looked
		}
	}
	return false, false
}

// recall notes the addresses that flows are led by, that the table which is there
// has as those of Services, and that the plan has not: they went while nobody
// looked, and only this table knows that they were Services'. What cannot be read
// is not noted. It is for a process that starts, before it replaces the table.
func (s *servedFlows) recall(plan *service.Plan) {
	table, err := openReader()
	if err != nil {
		return
	}
	defer table.close()
	if !table.sameSchema() {
		return
	}
	kernel, err := openTracker()
	if err != nil {
		return
	}
	defer kernel.close()
	for _, family := range model.Families {
		led := map[service.VIP]struct{}{}
		_ = kernel.each(family, model.UDP, func(flow *tracked) {
			vip := service.VIP{Protocol: model.UDP, At: flow.forward.to}
			if _, served := plan.Frontends.Get(vip); !served && flow.called() != vip.At && !flow.zone {
				led[vip] = struct{}{}
			}
		})
		maps := newServiceMaps(family)
		for vip := range led {
			if class, err := table.get(maps.classes.Name, vipKey(vip)); err != nil || class == nil {
				continue
			}
			if s.gone == nil {
				s.gone = map[service.VIP]struct{}{}
			}
			s.gone[vip] = struct{}{}
		}
	}
}
