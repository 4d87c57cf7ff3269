package nftables

import (
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
)

// TestSurvey: what drops what it does not accept, and nothing else.
func TestSurvey(t *testing.T) {
	netnstest.Enter(t)
	f := NewFirewall()
	for _, c := range []struct{ commands, want string }{
		{"true", "[]"},
		{"iptables -P FORWARD ACCEPT; ip6tables -A FORWARD -i eth7 -j ACCEPT", "[]"},
		{"iptables -P INPUT DROP; iptables -t mangle -A FORWARD -j MARK --set-mark 1", "[]"},
		{"iptables -P FORWARD DROP", "[ip filter FORWARD]"},
		{"ip6tables -P FORWARD DROP", "[ip filter FORWARD ip6 filter FORWARD]"},
		{"iptables -P FORWARD ACCEPT; iptables -A FORWARD -j REJECT", "[ip filter FORWARD ip6 filter FORWARD]"},
		{"iptables -A FORWARD -i docker0 -j ACCEPT", "[ip6 filter FORWARD]"},
		{"iptables -F FORWARD; ip6tables -P FORWARD ACCEPT; ip6tables -A FORWARD -j DROP", "[ip6 filter FORWARD]"},
		{"ip6tables -F FORWARD", "[]"},
		{"iptables -A FORWARD -m comment --comment last -j DROP", "[ip filter FORWARD]"},
		{"iptables -A FORWARD -m comment --comment some -m mark --mark 1 -j DROP", "[]"},
		{"nft 'flush chain ip filter FORWARD; add rule ip filter FORWARD rt mtu 1280 drop'", "[]"},
		{"nft 'flush chain ip filter FORWARD; add rule ip filter FORWARD ct original ip saddr 10.0.0.1 accept'", "[]"},
		{"nft 'add rule ip filter FORWARD counter drop'", "[ip filter FORWARD]"},
		{"nft flush chain ip filter FORWARD", "[]"},
		{"nft 'table inet firewalld { chain filter_FORWARD { type filter hook forward priority 10; policy accept; ct state established accept; reject with icmpx type admin-prohibited; }; }'", "[inet firewalld filter_FORWARD]"},
		{"nft 'table inet filter { chain forward { type filter hook forward priority 0; policy drop; }; }'", "[inet filter forward inet firewalld filter_FORWARD]"},
		{"nft 'table inet fairlead { chain forward { type filter hook forward priority 0; policy drop; }; }'; nft delete table inet firewalld", "[inet filter forward]"},
		{"nft flush ruleset", "[]"},
	} {
		shell(t, c.commands)
		found, err := f.Survey()
		must(t, err)
		var texts []string
		for _, chain := range found.Drops {
			texts = append(texts, chain.String())
		}
		if got := "[" + strings.Join(texts, " ") + "]"; got != c.want {
			t.Errorf("after %s: %s, want %s", c.commands, got, c.want)
		}
	}
}

// TestDroppers: who drops some packet, at any hook, by a chain of any depth.
func TestDroppers(t *testing.T) {
	netnstest.Enter(t)
	f := NewFirewall()
	for _, c := range []struct{ commands, want string }{
		{"true", ""},
		{"iptables -A FORWARD -j ACCEPT; nft 'table inet fairlead { chain c { type filter hook input priority 0; policy drop; }; }'", ""},
		{"iptables -N KUBE-FIREWALL; iptables -A OUTPUT -j KUBE-FIREWALL; iptables -A KUBE-FIREWALL -d 127.0.0.0/8 ! -s 127.0.0.0/8 -j DROP", ""},
		{"iptables -P INPUT DROP", "ip filter INPUT"},
		{"iptables -N ONE; iptables -N TWO; iptables -A FORWARD -i eth0 -j ONE; iptables -A ONE -p tcp -j TWO; iptables -A TWO -p tcp --dport 9 -j REJECT; iptables -A TWO -j RETURN", "ip filter FORWARD, ip filter INPUT"},
		{"nft 'table inet mine { chain raw { type filter hook prerouting priority -300; udp dport 4789 drop; }; }'", "inet mine raw, ip filter FORWARD, ip filter INPUT"},
	} {
		shell(t, c.commands)
		names, err := f.Droppers()
		must(t, err)
		if got := strings.Join(names, ", "); got != c.want {
			t.Errorf("after %s: %s, want %s", c.commands, got, c.want)
		}
	}
}

// TestSurveyedPasses: of chains that drop, what they accept of pods' packets, for certain.
func TestSurveyedPasses(t *testing.T) {
	netnstest.Enter(t)
	// As firewalld 1.3 makes it, of zones public and trusted.
	const firewalld = `table inet firewalld {
		chain filter_FORWARD {
			type filter hook forward priority filter + 10; policy accept;
			ct state { established, related } accept
			ct status dnat accept
			iifname "lo" accept
			ct state invalid drop
			ip6 daddr { ::/96, 2002::/24 } reject
			jump filter_FORWARD_ZONES
			reject with icmpx type admin-prohibited
		}
		chain filter_FORWARD_ZONES {
			ip saddr 10.244.0.0/15 goto filter_FWD_trusted
			ip6 saddr fd00:10:244::/56 goto filter_FWD_trusted
			iifname "eth0" goto filter_FWD_public
			goto filter_FWD_public
		}
		chain filter_FWD_trusted {
			jump filter_FWD_trusted_pre
			accept
		}
		chain filter_FWD_trusted_pre { }
		chain filter_FWD_public {
			jump filter_FWD_trusted_pre
			meta l4proto icmp accept
			reject
		}
	}`
	f := NewFirewall()
	for _, c := range []struct{ commands, want string }{
		{"iptables -A FORWARD -i fl+ -j ACCEPT", ""}, // nothing drops
		{"iptables -P FORWARD DROP", "from 0.0.0.0/0"},
		{"iptables -A FORWARD -o fl+ -d 10.244.1.0/24 -j ACCEPT", "from 0.0.0.0/0, to 10.244.1.0/24"},
		{"iptables -A FORWARD -s 10.244.0.0/15 -m comment --comment pods -j ACCEPT", "from 0.0.0.0/0, source 10.244.0.0/15, to 10.244.1.0/24"},
		{"iptables -F FORWARD; iptables -A FORWARD -i eth0 -j ACCEPT; iptables -A FORWARD ! -i fl+ -j ACCEPT; iptables -A FORWARD -s 10.244.0.0/16 -p tcp -j ACCEPT; iptables -A FORWARD -i fl+ -o eth0 -j ACCEPT", ""},
		{"iptables -F FORWARD; iptables -A FORWARD -i fl+ -j DROP; iptables -A FORWARD -i fl+ -j ACCEPT; iptables -A FORWARD -s 10.9.0.0/16 -j REJECT; iptables -A FORWARD -s 10.9.1.0/24 -j ACCEPT", ""},
		{"iptables -A FORWARD -s 10.0.0.0/8 -j ACCEPT", "source 10.0.0.0/8"},                                          // all but a part
		{"iptables -F FORWARD; iptables -N PODS; iptables -A FORWARD -i fl+ -j PODS; iptables -A PODS -j ACCEPT", ""}, // they change all the time
		{"iptables -P FORWARD ACCEPT; nft 'table ip hand { chain pods { ip saddr 10.9.0.0/16 return; ip saddr 10.9.9.0/24 accept; ip saddr 10.0.0.0/8 accept; }; chain forward { type filter hook forward priority 0; policy drop; iifname \"fl*\" jump pods; }; }'", "from 10.0.0.0/8"},
		{"nft insert rule ip hand pods return; iptables -P FORWARD DROP", ""},
		{"nft 'flush chain ip hand pods; add rule ip hand pods drop; add rule ip hand forward iifname \"fl*\" accept'", ""},
		{"nft delete table ip hand", ""},
		{"iptables -F FORWARD; " + `iptables -A FORWARD -i fl+ -m comment --comment "fairlead: from pods of 0.0.0.0/0" -j ACCEPT`, ""}, // is ours
		{"iptables -P FORWARD ACCEPT; nft 'table inet mine { chain forward { type filter hook forward priority 0; policy drop; iifname \"fl*\" accept; oifname \"fl*\" accept; }; }'", "from 0.0.0.0/0, from ::/0, to 0.0.0.0/0, to ::/0"},
		{"nft 'flush chain inet mine forward; add rule inet mine forward meta nfproto ipv6 iifname \"f*\" accept; add rule inet mine forward ip6 daddr fd00:10:244::/52 accept; add rule inet mine forward ip ttl 9 accept'", "from ::/0, to fd00:10:244::/52"},
		{"nft 'flush chain inet mine forward; add rule inet mine forward counter drop; add rule inet mine forward accept'", ""},
		{"nft delete table inet mine; nft '" + firewalld + "'", "source 10.244.0.0/15, source fd00:10:244::/56"},
	} {
		shell(t, c.commands)
		found, err := f.Survey()
		must(t, err)
		var texts []string
		for _, pass := range found.Passes {
			if !slices.Contains(found.Drops, pass.Chain) {
				t.Errorf("after %s: %s does not drop", c.commands, pass.Chain)
			}
			texts = append(texts, string(pass.Of)+" "+pass.Pods.String())
		}
		if got := strings.Join(texts, ", "); got != c.want {
			t.Errorf("after %s: %s, want %s", c.commands, got, c.want)
		}
	}
}
