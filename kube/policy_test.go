package kube

import (
	"bytes"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/network-policy-api/apis/v1alpha2"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-net/fairlead/model"
)

// ruleText is a rule in a few words, so that tests can be read.
func ruleText(r *model.PolicyRule) string {
	var peers, ports []string
	if r.Anyone {
		peers = append(peers, "anyone")
	}
	for _, p := range r.Peers {
		if p.Block.IsValid() {
			text := p.Block.String()
			for _, except := range p.Except {
				text += "-" + except.String()
			}
			peers = append(peers, text)
			continue
		}
		if p.Domain != "" {
			peers = append(peers, p.Domain)
			continue
		}
		if p.Nodes != nil {
			peers = append(peers, fmt.Sprintf("nodes %s", p.Nodes))
			continue
		}
		peers = append(peers, fmt.Sprintf("{%s}/{%s}", p.Namespaces, p.Pods))
	}
	if r.AnyPort {
		ports = append(ports, "any")
	}
	for _, p := range r.Ports {
		switch {
		case p.Name != "":
			ports = append(ports, fmt.Sprintf("%s %s", p.Protocol, p.Name))
		default:
			ports = append(ports, fmt.Sprintf("%s %d-%d", p.Protocol, p.From, p.To))
		}
	}
	return strings.Join(peers, " ") + ": " + strings.Join(ports, " ")
}

// policyText is a policy in a few words: for whom, and its rules by direction.
func policyText(p *model.Policy) string {
	text := p.Pods.String()
	for _, d := range model.Directions {
		if !p.Isolates[d] {
			continue
		}
		text += "; " + d.String()
		for i := range p.Rules[d] {
			text += " [" + ruleText(&p.Rules[d][i]) + "]"
		}
	}
	return text
}

// own is how the pods of the policy's own namespace are chosen.
const own = "kubernetes.io/metadata.name=shop"

// TestConvertPolicy: what a NetworkPolicy says (networking.k8s.io/v1), and that
// nothing is allowed by what is not understood.
func TestConvertPolicy(t *testing.T) {
	for _, test := range []struct {
		name, spec, want string
		wrong            []string // fields with a Problem
	}{
		{"nothing said", `{}`, "*; ingress", nil},
		{"egress rules alone", `{podSelector: {}, egress: [{}]}`, "*; ingress; egress [anyone: any]", nil},
		{"types", `{policyTypes: [Egress], ingress: [{}], egress: []}`, "*; egress", nil},
		{"both types, no rules", `{policyTypes: [Ingress, Egress]}`, "*; ingress; egress", nil},
		{"null and empty lists", `{ingress: [{from: [], ports: null}]}`, "*; ingress [anyone: any]", nil},
		{"subject", `{podSelector: {matchLabels: {b: "2", a: "1"}, matchExpressions: [{key: c, operator: NotIn, values: [z, x, z]}]}}`,
			"a=1,b=2,c notin (x,z); ingress", nil},
		{"peers", `{ingress: [{from: [{podSelector: {}}, {namespaceSelector: {}}, {podSelector: {matchLabels: {a: b}}, namespaceSelector: {matchLabels: {c: d}}},
			{namespaceSelector: {matchExpressions: [{key: e, operator: Exists}, {key: f, operator: DoesNotExist}]}}]}]}`,
			"*; ingress [{" + own + "}/{*} {*}/{*} {c=d}/{a=b} {e,!f}/{*}: any]", nil},
		{"blocks", `{egress: [{to: [{ipBlock: {cidr: 10.1.2.3/8, except: [10.1.0.0/16, 10.2.3.4/32]}}, {ipBlock: {cidr: "fd00::/8"}}, {ipBlock: {cidr: "::ffff:10.0.0.0/104"}}]}]}`,
			"*; ingress; egress [10.0.0.0/8-10.1.0.0/16-10.2.3.4/32 fd00::/8 10.0.0.0/8: any]", nil},
		{"ports", `{ingress: [{ports: [{}, {port: 80}, {protocol: UDP, port: dns}, {protocol: SCTP, port: 7, endPort: 9}, {protocol: UDP}]}]}`,
			"*; ingress [anyone: TCP 0-65535 TCP 80-80 UDP dns SCTP 7-9 UDP 0-65535]", nil},

		{"a block that is none", `{ingress: [{from: [{ipBlock: {cidr: x}}]}, {from: [{ipBlock: {cidr: 10.0.0.0/8}}]}]}`,
			"*; ingress [: any] [10.0.0.0/8: any]", []string{"spec.ingress[0].from[0].ipBlock.cidr"}},
		{"exceptions", `{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [x]}}, {ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16, "fd00::/16"]}},
			{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}, {ipBlock: {cidr: 10.0.0.0/8, except: [0.0.0.0/0]}}]}]}`,
			"*; ingress [10.0.0.0/8: any]",
			[]string{"spec.ingress[0].from[0].ipBlock.except[0]", "spec.ingress[0].from[1].ipBlock.except[0]", "spec.ingress[0].from[1].ipBlock.except[1]",
				"spec.ingress[0].from[2].ipBlock.except[0]", "spec.ingress[0].from[3].ipBlock.except[0]"}},
		{"a peer of a newer API", `{ingress: [{from: [{serviceSelector: {}}]}]}`, "*; ingress [: any]", []string{"spec.ingress[0].from[0]"}},
		{"a peer that is two", `{egress: [{to: [{podSelector: {}, ipBlock: {cidr: 10.0.0.0/8}}]}]}`, "*; ingress; egress [: any]", []string{"spec.egress[0].to[0]"}},
		{"ports that are none", `{ingress: [{ports: [{endPort: 9}, {port: 9, endPort: 8}, {port: web, endPort: 9}, {port: 0}, {port: 65536}, {port: 1, endPort: 65536}, {protocol: x, port: 1}, {port: ""}]}]}`,
			"*; ingress [anyone: ]", func() (all []string) {
				for i := range 8 {
					all = append(all, fmt.Sprintf("spec.ingress[0].ports[%d]", i))
				}
				return all
			}()},
		{"an operator of a newer API", `{ingress: [{from: [{podSelector: {matchExpressions: [{key: a, operator: Gt, values: ["1"]}]}}, {namespaceSelector: {matchExpressions: [{key: a, operator: In}]}}]}]}`,
			"*; ingress [{" + own + "}/{never a} {never a}/{*}: any]",
			[]string{"spec.ingress[0].from[0].podSelector.matchExpressions[0]", "spec.ingress[0].from[1].namespaceSelector.matchExpressions[0]"}},
		{"a subject of a newer API", `{podSelector: {matchLabels: {a: b}, matchExpressions: [{key: a, operator: Gt}]}, ingress: [{}]}`,
			"a=b; ingress", []string{"spec.podSelector.matchExpressions[0]"}},
		{"a type of a newer API", `{policyTypes: [Forward], ingress: [{}]}`, "*; ingress [anyone: any]", []string{"spec.policyTypes[0]"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			object := &networkingv1.NetworkPolicy{}
			if err := yaml.Unmarshal([]byte("metadata: {namespace: shop, name: p}\nspec: "+test.spec), object); err != nil {
				t.Fatal(err)
			}
			made := convertPolicy(object)
			if got := policyText(made.value); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
			checkFields(t, made.problems, "NetworkPolicy/shop/p", "kubectl edit -n shop networkpolicies p", test.wrong)
			if again, _ := rewritten(t, &model.Snapshot{Policies: model.Map[model.PolicyKey, *model.Policy]{}.With(made.key, made.value)}).Policies.Get(made.key); again == nil || !again.Equal(made.value) {
				t.Errorf("written and read again, it is %+v, and was %+v", again, made.value)
			}
		})
	}
}

// rewritten is a snapshot that was written and read again.
func rewritten(t *testing.T, snapshot *model.Snapshot) *model.Snapshot {
	t.Helper()
	var text bytes.Buffer
	if err := WriteSnapshotJSON(&text, snapshot); err != nil {
		t.Fatal(err)
	}
	again, err := ReadSnapshot(&text)
	if err != nil {
		t.Fatal(err)
	}
	return again
}

// TestUnderstoodNote: it means the same to each version of the program that reads it,
// and nothing where it comes from the API server.
func TestUnderstoodNote(t *testing.T) {
	object := &v1alpha2.ClusterNetworkPolicy{}
	if err := yaml.Unmarshal([]byte(`{metadata: {name: p}, spec: {tier: Baseline, priority: 1, subject: {namespaces: {}}, ingress: [{action: Pass, from: [{namespaces: {}}]}, {action: Deny, from: [{}]},
		{action: Accept, from: [{namespaces: {matchExpressions: [{key: a, operator: Gt}]}}]}]}}`), object); err != nil {
		t.Fatal(err)
	}
	made := convertClusterPolicy(object).value
	var text bytes.Buffer
	if err := WriteSnapshotJSON(&text, &model.Snapshot{ClusterPolicies: model.Map[string, *model.ClusterPolicy]{}.With("p", made)}); err != nil {
		t.Fatal(err)
	}
	document, _, _ := strings.Cut(strings.TrimPrefix(text.String(), "---\n"), "---\n")
	var read v1alpha2.ClusterNetworkPolicy
	if err := yaml.Unmarshal([]byte(document), &read); err != nil {
		t.Fatal(err)
	}
	if got, want := read.Annotations["fairlead.io/understood-1"], `{"Name":"p","Tier":2,"Priority":1,"Namespaces":{"Requirements":null},"Pods":{"Requirements":null},"Rules":[[{"Name":"","Action":2,"Anyone":false,"Peers":[{"Namespaces":{"Requirements":null},"Pods":{"Requirements":null},"Block":"","Except":null,"Domain":"","Nodes":null}],"AnyPort":true,"Ports":null},{"Name":"","Action":1,"Anyone":true,"Peers":null,"AnyPort":true,"Ports":null},{"Name":"","Action":0,"Anyone":false,"Peers":null,"AnyPort":false,"Ports":null}],null]}`; got != want {
		t.Errorf("it is\n%s, not\n%s: give it another number", got, want)
	}
	if live := convertClusterPolicy(&read).value; live.Rules[model.Ingress][1].Anyone {
		t.Error("an object of the API server says itself what it means")
	}
}

// TestOneObjectOfSnapshot: a policy that is remarked on can be read by all, and what is not
// understood of one costs a recall nothing else.
func TestOneObjectOfSnapshot(t *testing.T) {
	key := model.PolicyKey{Namespace: "shop", Name: "p"}
	many := &model.Policy{PolicyKey: key, Isolates: [2]bool{model.Egress: true}, Rules: [2][]model.PolicyRule{model.Egress: {{AnyPort: true}}}}
	for i := range manyBlocks + 1 {
		block := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 32)
		many.Rules[model.Egress][0].Peers = append(many.Rules[model.Egress][0].Peers, model.Peer{Block: block})
	}
	if again, _ := rewritten(t, &model.Snapshot{Policies: model.Map[model.PolicyKey, *model.Policy]{}.With(key, many)}).Policies.Get(key); again == nil || !again.Equal(many) {
		t.Errorf("it is %+v", again)
	}
	const file = policySnapshot + `---
{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"namespace": "shop", "name": "new"}, "spec": {"podSelector": {}, "ingress": [{"from": [{"weather": {}}]}]}}
`
	if _, err := ReadSnapshot(strings.NewReader(file)); err == nil {
		t.Error("a file of a person is read with a mistake in it")
	}
	again, err := RecallSnapshot(strings.NewReader(file))
	if err != nil || again.Policies.Len() != 2 {
		t.Fatalf("%v, %+v", err, again)
	}
	if p, _ := again.Policies.Get(model.PolicyKey{Namespace: "shop", Name: "new"}); len(p.Rules[model.Ingress]) != 1 || len(p.Rules[model.Ingress][0].Peers) > 0 || p.Rules[model.Ingress][0].Anyone {
		t.Errorf("it is %+v", p)
	}
	if _, err := RecallSnapshot(strings.NewReader("apiVersion: fairlead.io/v1alpha1\nkind: Network\nmetadata: {name: default}\nspec: {mtu: 3}")); err == nil {
		t.Error("a Network that is not understood is followed")
	}
}

// TestManyBlocks: thousands of ranges are all there, and remarked on.
func TestManyBlocks(t *testing.T) {
	for blocks, remarked := range map[int]bool{manyBlocks: false, manyBlocks + 1: true} {
		object := &networkingv1.NetworkPolicy{}
		object.Namespace, object.Name = "shop", "p"
		few, many := []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0.0/8"}}}, []networkingv1.NetworkPolicyPeer{}
		for i := range blocks - 1 {
			many = append(many, networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: fmt.Sprintf("172.16.%d.%d/32", i/256, i%256)}})
		}
		object.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{{To: few}, {To: many}}
		made := convertPolicy(object)
		if got := len(made.value.Rules[model.Egress][1].Peers); got != blocks-1 {
			t.Errorf("%d ranges of %d are there", got, blocks-1)
		}
		if (len(made.problems) == 1) != remarked || remarked && (made.problems[0].Field != "spec.egress[1].to" || made.problems[0].Object() != "NetworkPolicy/shop/p") {
			t.Errorf("%d ranges: problems %v", blocks, made.problems)
		}
	}
}

func checkFields(t *testing.T, problems []model.Problem, object, remedy string, want []string) {
	t.Helper()
	var fields []string
	for _, problem := range problems {
		fields = append(fields, problem.Field)
		if problem.Object() != object || !strings.Contains(problem.Remedy, remedy) || problem.Message == "" {
			t.Errorf("problem: %s", problem)
		}
	}
	if !reflect.DeepEqual(fields, want) {
		t.Errorf("problems %v\nare not of %v", problems, want)
	}
}

func clusterPolicyText(p *model.ClusterPolicy) string {
	text := fmt.Sprintf("%s %d {%s}/{%s}", p.Tier, p.Priority, p.Namespaces, p.Pods)
	for _, d := range model.Directions {
		for i := range p.Rules[d] {
			rule := &p.Rules[d][i]
			text += fmt.Sprintf("; %s %s%s [%s]", d, rule.Action, rule.Name, ruleText(&rule.PolicyRule))
		}
	}
	return text
}

const (
	fitsNothing = "[: ]"
	deniesAll   = "[anyone: any]"
)

// TestConvertClusterPolicy is like TestConvertPolicy, of ClusterNetworkPolicies.
func TestConvertClusterPolicy(t *testing.T) {
	const all = `subject: {namespaces: {}}`
	for _, test := range []struct {
		name, spec, want string
		wrong            []string
	}{
		{"nothing", `{tier: Admin, priority: 7, ` + all + `}`, "Admin 7 {*}/{*}", nil},
		{"all that there is", `{tier: Baseline, priority: 0, subject: {pods: {namespaceSelector: {matchLabels: {a: b}}, podSelector: {matchLabels: {c: d}}}},
			ingress: [{name: x, action: Pass, from: [{namespaces: {}}, {pods: {podSelector: {matchLabels: {e: f}}}}]}],
			egress: [{action: Accept, to: [{networks: [10.0.0.0/8, "fd00::/8"]}], protocols: [{tcp: {destinationPort: {number: 80}}}, {udp: {destinationPort: {range: {start: 1, end: 9}}}}, {sctp: {}}]},
				{action: Deny, to: [{namespaces: {}}], protocols: [{destinationNamedPort: web}]}]}`,
			"Baseline 0 {a=b}/{c=d}; ingress Passx [{*}/{*} {*}/{e=f}: any]; egress Accept [10.0.0.0/8 fd00::/8: TCP 80-80 UDP 1-9 SCTP 0-65535]; " +
				"egress Deny [{*}/{*}: TCP web UDP web SCTP web]", nil},

		{"a peer of a newer API", `{tier: Admin, priority: 1, ` + all + `, ingress: [{action: Accept, from: [{namespaces: {}}, {services: {}}]},
			{action: Deny, from: [{services: {}}]}, {action: Pass, from: [{services: {}}], protocols: [{tcp: {}}]}, {action: Deny, from: [{namespaces: {}}]}]}`,
			"Admin 1 {*}/{*}; ingress Accept " + fitsNothing + "; ingress Deny " + deniesAll + "; ingress Deny " + deniesAll + "; ingress Deny [{*}/{*}: any]",
			[]string{"spec.ingress[0].from[1]", "spec.ingress[1].from[0]", "spec.ingress[2].from[0]"}},
		{"peers of the experimental channel", `{tier: Admin, priority: 1, ` + all + `, egress: [{action: Deny, to: [{nodes: {}}, {nodes: {matchLabels: {a: b}}}]}, {action: Accept, to: [{domainNames: [WWW.Example.org., "*.a.b"]}, {networks: [10.0.0.0/8]}]}]}`,
			"Admin 1 {*}/{*}; egress Deny [nodes * nodes a=b: any]; egress Accept [www.example.org *.a.b 10.0.0.0/8: any]", nil},
		{"nodes of a newer API", `{tier: Admin, priority: 1, ` + all + `, egress: [{action: Accept, to: [{nodes: {matchExpressions: [{key: a, operator: Gt}]}}]}, {action: Deny, to: [{nodes: {}, networks: [10.0.0.0/8]}]}]}`,
			"Admin 1 {*}/{*}; egress Accept " + fitsNothing + "; egress Deny " + deniesAll,
			[]string{"spec.egress[0].to[0].nodes.matchExpressions[0]", "spec.egress[1].to[0]"}},
		{"domain names that are not accepted", `{tier: Admin, priority: 1, ` + all + `, egress: [{action: Deny, to: [{domainNames: [example.org]}]}, {action: Pass, to: [{domainNames: [example.org]}]}]}`,
			"Admin 1 {*}/{*}; egress Deny " + deniesAll + "; egress Deny " + deniesAll,
			[]string{"spec.egress[0].to[0].domainNames", "spec.egress[1].to[0].domainNames"}},
		{"domain names that are none", `{tier: Admin, priority: 1, ` + all + `, egress: [{action: Accept, to: [{domainNames: [example.org, org, "a.*.org", "*org.a", "*", "a..b", "10.0.0.0/8"]}]}]}`,
			"Admin 1 {*}/{*}; egress Accept " + fitsNothing,
			[]string{"spec.egress[0].to[0].domainNames[1]", "spec.egress[0].to[0].domainNames[2]", "spec.egress[0].to[0].domainNames[3]", "spec.egress[0].to[0].domainNames[4]", "spec.egress[0].to[0].domainNames[5]", "spec.egress[0].to[0].domainNames[6]"}},
		{"no peers", `{tier: Admin, priority: 1, ` + all + `, egress: [{action: Deny, to: []}, {action: Accept}]}`,
			"Admin 1 {*}/{*}; egress Deny " + deniesAll + "; egress Accept " + fitsNothing, []string{"spec.egress[0]", "spec.egress[1]"}},
		{"networks that are none", `{tier: Admin, priority: 1, ` + all + `, egress: [{action: Accept, to: [{networks: [x, 10.0.0.0/8]}]}]}`,
			"Admin 1 {*}/{*}; egress Accept " + fitsNothing, []string{"spec.egress[0].to[0].networks[0]"}},
		{"protocols that are none", `{tier: Admin, priority: 1, ` + all + `, ingress: [{action: Accept, from: [{namespaces: {}}], protocols: [{icmp: {}}]},
			{action: Deny, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {}}}]}, {action: Deny, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {range: {start: 9, end: 1}}}}]}]}`,
			"Admin 1 {*}/{*}; ingress Accept " + fitsNothing + "; ingress Deny " + deniesAll + "; ingress Deny " + deniesAll,
			[]string{"spec.ingress[0].protocols[0]", "spec.ingress[1].protocols[0]", "spec.ingress[2].protocols[0]"}},
		{"an operator of a newer API", `{tier: Admin, priority: 1, ` + all + `, ingress: [{action: Deny, from: [{namespaces: {matchExpressions: [{key: a, operator: Gt}]}}]}]}`,
			"Admin 1 {*}/{*}; ingress Deny " + deniesAll, []string{"spec.ingress[0].from[0].namespaces.matchExpressions[0]"}},
		{"an action of a newer API", `{tier: Admin, priority: 1, ` + all + `, ingress: [{action: Log, from: [{namespaces: {}}]}]}`,
			"Admin 1 {*}/{*}; ingress Deny [{*}/{*}: any]", []string{"spec.ingress[0].action"}},
		{"a subject of a newer API", `{tier: Baseline, priority: 1, subject: {nodes: {}}, ingress: [{action: Accept, from: [{namespaces: {}}]}, {action: Pass, from: [{namespaces: {}}]}]}`,
			"Baseline 1 {*}/{*}; ingress Accept " + fitsNothing + "; ingress Deny [{*}/{*}: any]", []string{"spec.subject"}},
		{"a tier of a newer API", `{tier: Last, priority: 1, ` + all + `, ingress: [{action: Accept, from: [{namespaces: {}}]}, {action: Deny, from: [{namespaces: {}}]}]}`,
			"Admin 1 {*}/{*}; ingress Accept " + fitsNothing + "; ingress Deny [{*}/{*}: any]", []string{"spec.tier"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			object := &v1alpha2.ClusterNetworkPolicy{}
			if err := yaml.Unmarshal([]byte("metadata: {name: p}\nspec: "+test.spec), object); err != nil {
				t.Fatal(err)
			}
			made := convertClusterPolicy(object)
			if got := clusterPolicyText(made.value); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
			checkFields(t, made.problems, "ClusterNetworkPolicy/p", "kubectl edit clusternetworkpolicies p", test.wrong)
			if again, _ := rewritten(t, &model.Snapshot{ClusterPolicies: model.Map[string, *model.ClusterPolicy]{}.With(made.key, made.value)}).ClusterPolicies.Get(made.key); again == nil || !again.Equal(made.value) {
				t.Errorf("written and read again, it is %+v, and was %+v", again, made.value)
			}
		})
	}
}

const policySnapshot = `
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: a}}
---
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {a: b, topology.kubernetes.io/zone: z1}}
---
apiVersion: v1
kind: Pod
metadata: {namespace: shop, name: web-0, uid: x, labels: {app: web, tier: ""}, annotations: {kubernetes.io/config.mirror: z}}
spec:
  initContainers: [{name: once, ports: [{name: gone, containerPort: 1}]}, {name: sidecar, restartPolicy: Always, ports: [{name: side, containerPort: 2, protocol: UDP}]}]
  containers: [{name: c, ports: [{name: http, containerPort: 8080}, {containerPort: 9}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shop, name: p}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress, Egress]
  ingress: [{}, {from: [{podSelector: {}}, {ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}], ports: [{port: http}, {port: 1, endPort: 9}, {protocol: UDP}]}]
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: c}
spec:
  tier: Baseline
  priority: 3
  subject: {namespaces: {matchExpressions: [{key: a, operator: NotIn, values: [b, c]}]}}
  ingress: [{action: Pass, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {range: {start: 1, end: 2}}}}, {destinationNamedPort: http}]}]
  egress: [{name: x, action: Accept, to: [{nodes: {matchLabels: {a: b}}}, {networks: [10.0.0.0/8]}, {domainNames: [www.example.org, "*.example.org"]}], protocols: [{udp: {}}, {sctp: {destinationPort: {number: 9}}}]}]
---
apiVersion: fairlead.io/v1alpha1
kind: NodeState
resolved: [{address: 192.0.2.1, names: [www.example.org]}]
`

// TestPolicySnapshot: what a plan of policies depends on is the same after it was
// written, also of policies of which not all was understood.
func TestPolicySnapshot(t *testing.T) {
	first, err := ReadSnapshot(strings.NewReader(policySnapshot))
	if err != nil {
		t.Fatal(err)
	}
	key := model.PolicyKey{Namespace: "shop", Name: "p"}
	pod, _ := first.Pods.Get(model.PodKey{Namespace: "shop", Name: "web-0"})
	if pod == nil || pod.Labels.String() != "app=web,tier=" || fmt.Sprint(pod.Ports) != "[{side UDP 2} {http TCP 8080}]" || pod.UID != model.UIDOf("z") {
		t.Errorf("the pod is %+v", pod)
	}
	if shop, _ := first.Namespaces.Get("shop"); shop == nil || shop.Labels.String() != own+",team=a" {
		t.Errorf("the namespace is %+v", shop)
	}
	if !first.PoliciesKnown || first.Policies.Len() != 1 || first.ClusterPolicies.Len() != 1 {
		t.Errorf("policies: %t, %d, %d", first.PoliciesKnown, first.Policies.Len(), first.ClusterPolicies.Len())
	}
	unclear := *first
	unclear.PoliciesKnown = false
	policy, _ := first.Policies.Get(key)
	vague := *policy
	vague.Rules[model.Egress] = []model.PolicyRule{{AnyPort: true}, {Anyone: true}}
	unclear.Policies = unclear.Policies.With(key, &vague)
	for _, snapshot := range []*model.Snapshot{first, &unclear} {
		var once, twice bytes.Buffer
		if err := WriteSnapshot(&once, snapshot); err != nil {
			t.Fatal(err)
		}
		again, err := ReadSnapshot(bytes.NewReader(once.Bytes()))
		if err != nil {
			t.Fatalf("%v in\n%s", err, once.String())
		}
		if err := WriteSnapshot(&twice, again); err != nil {
			t.Fatal(err)
		}
		if once.String() != twice.String() || again.PoliciesKnown != snapshot.PoliciesKnown {
			t.Errorf("written and read again, it is\n%s\nand was\n%s", twice.String(), once.String())
		}
		readPod, _ := again.Pods.Get(pod.PodKey)
		if readPod == nil || !readPod.Equal(pod) {
			t.Errorf("the pod is %+v, was %+v", readPod, pod)
		}
		if resolved, _ := again.Resolved.Get(netip.MustParseAddr("192.0.2.1")); resolved == nil || !slices.Equal(resolved.Names, []string{"www.example.org"}) {
			t.Errorf("the address leads to %+v", resolved)
		}
		want, _ := snapshot.ClusterPolicies.Get("c")
		if read, _ := again.ClusterPolicies.Get("c"); read == nil || !read.Equal(want) {
			t.Errorf("the ClusterNetworkPolicy is %+v, was %+v", read, want)
		}
		read, _ := again.Policies.Get(key)
		if read == nil {
			t.Fatal("no policy")
		}
		if was, _ := snapshot.Policies.Get(key); !read.Equal(was) {
			t.Errorf("the policy is %s, was %s", policyText(read), policyText(was))
		}
	}
}
