package dump

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"

	"github.com/fairlead-net/fairlead/dataplane/nftables/listing"
)

// Table is one of nftables. Of foreign tables there are only the chains that the
// kernel sends packets through: their rules are not ours to show.
type Table struct {
	Family string  `json:"family"`
	Name   string  `json:"name"`
	Chains []Chain `json:"chains,omitempty"`
	Sets   []Set   `json:"sets,omitempty"`
}

// Chain is one of a table.
type Chain struct {
	Name     string `json:"name"`
	Type     string `json:"type,omitempty"`
	Hook     string `json:"hook,omitempty"`
	Priority int32  `json:"priority,omitempty"`
	Policy   string `json:"policy,omitempty"`
	Rules    []Rule `json:"rules,omitempty"`
}

// Rule is one of a chain: its comment, and its expressions by their types.
type Rule struct {
	Handle      uint64   `json:"handle"`
	Comment     string   `json:"comment,omitempty"`
	Expressions []string `json:"expressions"`
}

// Set is one of a table, or a map.
type Set struct {
	Name     string   `json:"name"`
	Key      string   `json:"key"`
	Count    int      `json:"count"`
	Elements []string `json:"elements,omitempty"` // in hexadecimal; a map's with its value
}

// ourTable is that of the family inet whose content is given. The data plane
// names it.
const ourTable = "fairlead"

// mostElements of a set are given.
const mostElements = 2_000

func (k *Kernel) readTables() {
	conn, err := nft.New()
	if err != nil {
		k.failed("nftables", err)
		return
	}
	tables, err := conn.ListTables()
	k.failed("tables", err)
	chains, err := listing.Chains(nft.TableFamilyUnspecified)
	k.failed("chains", err)
	for _, table := range tables {
		t := Table{Family: familyName(table.Family), Name: table.Name}
		ours := table.Family == nft.TableFamilyINet && table.Name == ourTable
		for _, chain := range chains {
			if chain.Table.Name == table.Name && chain.Table.Family == table.Family && (ours || chain.Hooknum != nil) {
				t.Chains = append(t.Chains, k.readChain(chain, ours))
			}
		}
		if ours {
			t.Sets = k.readSets(conn, table)
		}
		k.Tables = append(k.Tables, t)
	}
}

func (k *Kernel) readChain(chain *nft.Chain, withRules bool) Chain {
	c := Chain{Name: chain.Name, Type: string(chain.Type)}
	if chain.Hooknum != nil {
		c.Hook = hookName(chain.Table.Family, *chain.Hooknum)
	}
	if chain.Priority != nil {
		c.Priority = int32(*chain.Priority)
	}
	if chain.Policy != nil {
		c.Policy = map[nft.ChainPolicy]string{nft.ChainPolicyAccept: "accept", nft.ChainPolicyDrop: "drop"}[*chain.Policy]
	}
	if !withRules {
		return c
	}
	rules, err := listing.Rules(chain)
	k.failed("rules", err)
	for _, rule := range rules {
		r := Rule{Handle: rule.Handle}
		r.Comment, _ = userdata.GetString(rule.UserData, userdata.TypeComment)
		for _, e := range rule.Exprs {
			r.Expressions = append(r.Expressions, expression(e))
		}
		c.Rules = append(c.Rules, r)
	}
	return c
}

// expression is such as "Cmp{Op:0 Register:8 Data:[1]}".
func expression(e expr.Any) string {
	return strings.TrimPrefix(fmt.Sprintf("%+v", e), "&") + " (" + strings.TrimPrefix(fmt.Sprintf("%T", e), "*expr.") + ")"
}

func (k *Kernel) readSets(conn *nft.Conn, table *nft.Table) (sets []Set) {
	found, err := conn.GetSets(table)
	k.failed("sets", err)
	for _, set := range found {
		s := Set{Name: set.Name, Key: set.KeyType.Name}
		elements, err := conn.GetSetElements(set)
		k.failed("elements of set "+set.Name, err)
		s.Count = len(elements)
		if len(elements) > mostElements {
			k.Truncated = append(k.Truncated, fmt.Sprintf("elements of set %s: %d of %d", set.Name, mostElements, len(elements)))
			elements = elements[:mostElements]
		}
		for _, e := range elements {
			text := hex.EncodeToString(e.Key)
			if e.IntervalEnd {
				text += " end"
			}
			if len(e.Val) > 0 {
				text += " : " + hex.EncodeToString(e.Val)
			}
			s.Elements = append(s.Elements, text)
		}
		sets = append(sets, s)
	}
	slices.SortFunc(sets, func(a, b Set) int { return cmp.Compare(a.Name, b.Name) })
	return sets
}

func familyName(family nft.TableFamily) string {
	switch family {
	case nft.TableFamilyINet:
		return "inet"
	case nft.TableFamilyIPv4:
		return "ip"
	case nft.TableFamilyIPv6:
		return "ip6"
	case nft.TableFamilyARP:
		return "arp"
	case nft.TableFamilyNetdev:
		return "netdev"
	case nft.TableFamilyBridge:
		return "bridge"
	default:
		return fmt.Sprint(family)
	}
}

func hookName(family nft.TableFamily, hook nft.ChainHook) string {
	if family == nft.TableFamilyNetdev {
		return "ingress"
	}
	names := []string{"prerouting", "input", "forward", "output", "postrouting"}
	if int(hook) < len(names) {
		return names[hook]
	}
	return fmt.Sprint(hook)
}
