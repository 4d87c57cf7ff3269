package dns

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

// world is a cluster of which all names are known.
func world(change func(*model.Snapshot)) *model.Snapshot {
	s := &model.Snapshot{Revision: 1, Network: model.DefaultNetwork(), NamesKnown: true}
	change(s)
	return s
}

func service(namespace, name string, addrs []netip.Addr, ports ...model.ServicePort) *model.Service {
	return &model.Service{ServiceKey: model.ServiceKey{Namespace: namespace, Name: name}, ClusterIPs: addrs, Ports: ports}
}

func addresses(texts ...string) (all []netip.Addr) {
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

func port(name string, protocol model.Protocol, number uint16) model.ServicePort {
	return model.ServicePort{Name: name, Protocol: protocol, Port: number}
}

// mustName reads a name, which must be one.
func mustName(t testing.TB, text string) Name {
	t.Helper()
	name, err := ParseName(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return name
}

// answer says what a name has of a type: its records, NODATA or NXDOMAIN.
func answer(z *Zone, name Name, kind string) string {
	records := z.Lookup(name)
	if records == nil {
		return "NXDOMAIN"
	}
	if records.CNAME != "" {
		return "CNAME " + records.CNAME.String()
	}
	var all []string
	switch kind {
	case "A", "AAAA":
		for _, addr := range records.Addrs {
			if addr.Is4() == (kind == "A") {
				all = append(all, addr.String())
			}
		}
	case "SRV":
		for _, srv := range records.SRV {
			all = append(all, fmt.Sprintf("%d %s", srv.Port, srv.Target))
		}
	case "PTR":
		for _, name := range records.PTR {
			all = append(all, name.String())
		}
	case "TXT":
		all = slices.Clone(records.TXT)
	}
	if len(all) == 0 {
		return "NODATA"
	}
	return strings.Join(all, ", ")
}

func TestUnknown(t *testing.T) {
	for name, snapshot := range map[string]*model.Snapshot{
		"nothing":    {},
		"no names":   {Network: model.DefaultNetwork()},
		"no Network": {NamesKnown: true},
	} {
		if zone, problems := Compute(nil, snapshot); zone != nil || len(problems) > 0 {
			t.Errorf("%s: the zone is %+v, with problems %v", name, zone, problems)
		}
	}
	first, _ := Compute(nil, world(func(*model.Snapshot) {}))
	if again, _ := Compute(first, &model.Snapshot{}); again != first {
		t.Error("what was known is forgotten when nothing is known")
	}
	if again, _ := Compute(first, world(func(*model.Snapshot) {})); again != first {
		t.Error("a snapshot that says nothing new makes another zone")
	}
}

func prefixes(texts ...string) (all []netip.Prefix) {
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

// sameSet compares lists with a comma between, in any order.
func sameSet(a, b string) bool {
	all := func(text string) []string { return slices.Sorted(slices.Values(strings.Split(text, ", "))) }
	return slices.Equal(all(a), all(b))
}
