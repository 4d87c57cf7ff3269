package nftables

import (
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
	"github.com/fairlead-net/fairlead/plan/firewall"
	"github.com/fairlead-net/fairlead/plan/policy"
)

// othersRules are of others: in families and at hooks that we have rules in, too,
// with our words for tables, chains and sets, and as iptables and Docker have
// them.
const othersRules = `
table ip fairlead {
	map policy-pods4 { type ipv4_addr : classid; elements = { 10.244.1.2 : 0:7 }; }
	chain forward {
		type filter hook forward priority filter - 5
		ip saddr 192.0.2.77 counter packets 7 bytes 700 drop comment "fairlead: not of ours"
	}
}
table inet fairlead-other {
	set clients { type ipv4_addr; flags dynamic,timeout; timeout 1h; elements = { 192.0.2.8 timeout 1h expires 59m }; }
	chain forward {
		type filter hook forward priority filter; policy accept;
		ip saddr @clients drop
	}
}
table inet firewalld {
	chain zones {
		iifname "docker0" accept
		meta mark set 0x4000
	}
	chain filter_FORWARD {
		type filter hook forward priority filter + 10; policy accept;
		ct state established,related accept
		jump zones
	}
}
table ip filter {
	chain KUBE-ROUTER {
		ip daddr 198.51.100.0/24 counter packets 3 bytes 300 drop
	}
	chain FORWARD {
		type filter hook forward priority filter; policy accept;
		counter packets 5 bytes 500 jump KUBE-ROUTER
		oifname "docker0" counter accept
	}
	chain unused { }
}
table ip nat {
	chain POSTROUTING {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr 172.17.0.0/16 counter masquerade
	}
}
table ip6 filter {
	chain FORWARD {
		type filter hook forward priority filter; policy accept;
		ip6 saddr 2001:db8:66::/48 drop
	}
}
table ip raw {
	chain PREROUTING {
		type filter hook prerouting priority raw; policy accept;
		udp dport 53 notrack
	}
}
table arp filter {
	chain INPUT {
		type filter hook input priority filter; policy accept;
		arp operation request accept
	}
}
`

// ofOthers lists all tables but ours. Handles tell whether something was taken out
// and put in again.
func ofOthers(t *testing.T) (text string) {
	t.Helper()
	for line := range strings.Lines(listed(t, "list", "tables")) {
		if line = strings.TrimSpace(line); line != "table inet "+TableName {
			text += listed(t, append([]string{"-a", "list"}, strings.Fields(line)...)...)
		}
	}
	return text
}

// TestOthersRulesStay: whatever we program, others' tables, chains, sets and rules
// stay as they are, with their counters and places (kube-router#1248: rules that
// were saved, edited and restored as a whole took others' with them).
func TestOthersRulesStay(t *testing.T) {
	netnstest.Enter(t)
	load := exec.Command("nft", "-f", "-")
	load.Stdin = strings.NewReader(othersRules)
	if out, err := load.CombinedOutput(); err != nil {
		t.Fatalf("nft -f: %v: %s", err, out)
	}
	withoutTime := func(text string) string { // that of the client's entry runs
		before, rest, _ := strings.Cut(text, " expires ")
		_, after, _ := strings.Cut(rest, " }")
		return before + after
	}
	before, plane := withoutTime(ofOthers(t)), New()
	unchanged := func(when string) {
		t.Helper()
		if now := withoutTime(ofOthers(t)); now != before {
			t.Fatalf("%s, others have\n%s\nand had\n%s", when, now, before)
		}
	}
	apply(t, plane, example())
	unchanged("after the first plan")
	changed := *example()
	p := policyPlan{*changed.Policy}
	p.pod("10.244.2.9", "role=new")
	p.block("203.0.113.0/24", "new")
	p.say(model.Ingress, "10.244.1.2", "role=new", policy.Ports{Default: accept})
	changed.Policy = &p.Plan
	apply(t, plane, &changed)
	unchanged("after a change of policies")
	plane = New()
	apply(t, plane, &changed)
	unchanged("after a restart")
	shell(t, "nft flush table inet "+TableName)
	plane.disturb()
	apply(t, plane, example())
	unchanged("after our table was flushed")
	must(t, plane.Remove())
	unchanged("when ours is gone")
	if tables := listed(t, "list", "tables"); strings.Contains(tables, "table inet "+TableName+"\n") {
		t.Errorf("left: %s", tables)
	}
}

// TestOthersRulesThatCome: what others put into the chains that we have rules in, in
// the very moment that we edit those, stays.
func TestOthersRulesThatCome(t *testing.T) {
	netnstest.Enter(t)
	const rules = 60
	shell(t, "iptables -P FORWARD DROP")
	done := make(chan error, 1)
	// A process of this namespace: a goroutine may be on a thread of another.
	others := exec.Command("sh", "-c", fmt.Sprintf(`for i in $(seq %d); do iptables -A FORWARD -s 192.0.2.$i -j ACCEPT || exit 1; done`, rules))
	must(t, others.Start())
	go func() { done <- others.Wait() }()
	f, edits := NewFirewall(), 0
	for running := true; running; edits++ {
		wanted := acceptingAll()
		if edits%2 == 1 {
			wanted = accepting(firewall.Accept{Chain: forward4, Pods: netip.MustParsePrefix("10.244.7.0/24")})
		}
		_, err := f.Apply(t.Context(), wanted)
		if err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			must(t, err)
			running = false
		default:
		}
	}
	must(t, f.Remove())
	if got := shell(t, "iptables -S FORWARD"); strings.Count(got, "-j ACCEPT") != rules || strings.Contains(got, Mark) {
		t.Errorf("after %d edits there is\n%s", edits, got)
	}
}

// TestFullSet: where a set has no room, the pod that needs it is denied and named,
// and those that were there stay as they were (weave#3289: with nine namespaces a
// set was full, and no policy was carried out from then on).
func TestFullSet(t *testing.T) {
	good := example()
	newcomer := *good
	p := policyPlan{*good.Policy}
	p.say(model.Ingress, "10.244.1.3", policy.Others, policy.Ports{Default: denyBy("deny-all")})
	for n := range 20 {
		group := policy.Group(fmt.Sprint("namespace", n))
		p.pod(fmt.Sprintf("10.244.3.%d", n), group)
		p.say(model.Ingress, "10.244.1.3", group, policy.Ports{Default: accept})
	}
	newcomer.Policy = &p.Plan
	closedTo := policy.Ports{Default: policy.Decision{By: policy.Rule{Policy: model.PolicyKey{Name: "10.244.1.3"}, Rule: policy.Unknown}}}
	for _, test := range []struct {
		name   string
		before *plan.Node
	}{{"of a pod that comes", good}, {"at first", nil}} {
		t.Run(test.name, func(t *testing.T) {
			netnstest.Enter(t)
			plane := New()
			cells := plane.policies.families[model.IPv4].cells[model.Ingress]
			cells.Size = 10
			if test.before != nil {
				apply(t, plane, test.before)
			}
			problems, err := plane.Apply(t.Context(), &newcomer)
			if err != nil {
				t.Fatal(err)
			}
			named := false
			for _, problem := range problems {
				named = named || problem.Field == "policy 10.244.1.3 ingress" && strings.Contains(problem.Message, "no room")
				if test.before != nil && problem.Field != "policy 10.244.1.3 ingress" {
					t.Errorf("another pod is concerned: %s", problem)
				}
			}
			if !named {
				t.Errorf("problems %v", problems)
			}
			row := plane.policies.rows.of(closedTo.Row())
			want := fmt.Sprintf("none . 10.244.1.3 : %x:%x", row>>16, row&0xffff)
			if all := listed(t, "list", "map", "inet", TableName, cells.Name); strings.Count(all, "10.244.1.3") != 1 || !strings.Contains(all, want) {
				t.Errorf("no %q alone of that pod in\n%s", want, all)
			}
			if test.before != nil && len(inSet(t, cells.Name)) != 4 {
				t.Errorf("%s has %q", cells.Name, inSet(t, cells.Name))
			}
			apply(t, plane, good) // all is well again
		})
	}
	if text := why(unix.ENFILE).Error(); !errors.Is(why(unix.ENFILE), unix.ENFILE) || !strings.Contains(text, "no room") {
		t.Error(text)
	}
}
