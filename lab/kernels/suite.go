package kernels

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Suite is a package whose tests need a kernel.
type Suite struct {
	Package string // a directory of the module
	Why     string // what of it the kernel decides
	Since   string // the first kernel, major.minor, that it needs; empty is any
	Needs   string // what that kernel brought
	// Skip matches tests that are left out unless they are asked for: of what is the
	// same on all kernels, and of load, which is what an emulator lacks.
	Skip string
}

// Suites lists those that run on every kernel.
func Suites() []Suite {
	return []Suite{
		{Package: "dataplane/netlink", Why: "routes, tunnels and neighbours as each kernel takes and tells them"},
		{
			Package: "dataplane/nftables", Why: "tables as each kernel takes and lists them",
			Skip: "UnderLoad|SplitPorts|Transition|Many|InAnyOrder|CutShort|Tampered|Others|Firewall|Survey|Droppers|Iptables|TestRefused$",
		},
		{Package: "dataplane/nftables/listing", Why: "chains and rules as each kernel tells them"},
		{Package: "dataplane/ebpf", Why: "programs that each kernel has to verify, and helpers that it has"},
		{
			Package: "dataplane/conformance", Why: "the data planes and real packets against the oracle",
			Skip: "UnderLoad|OverRestarts|ServicePackets|StickyClients|Cut|Quer|Domains|RandomWorlds",
		},
		{Package: "servers/udptunnel", Why: "TUN and UDP offloads that each kernel has", Skip: "JoinChangesNoPacket|TestRestart"},
		{Package: "servers/servicehealth", Why: "ports that are taken and freed, and what clients are told"},
		{
			Package: "agent", Why: "pods come and go, links are watched, sysctls are kept",
			Skip: "Journal|Configuration|Series|APIServer|Damaged|Chain|Exhausted|Foreign|Others|UnderLoad|Refusals|ServiceHealth|Killed|Adoption|AgentDown|Outlive|Reference|Parallel|FirstPacket",
		},
		{Package: "observe/dump", Why: "what each kernel tells of itself"},
		{Package: "observe/hop", Why: "what each kernel answers when it is asked for a packet's way", Skip: "Services|Faults"},
		{Package: "observe/probe", Why: "path MTUs and errors as each kernel tells them"},
		{Package: "preflight", Why: "the routes and links of a node that is looked at"},
		{
			Package: "lab/world", Why: "machines of namespaces, cgroups and overlays", Since: "5.14", Needs: "cgroup.kill, mount_setattr",
			Skip: "Loss|Rate|Crash|Partition|Latecomers",
		},
	}
}

// RunsOn tells whether a kernel, major.minor, has what the suite needs.
func (s Suite) RunsOn(version string) bool {
	var major, minor, sinceMajor, sinceMinor int
	if _, err := fmt.Sscanf(s.Since, "%d.%d", &sinceMajor, &sinceMinor); err != nil {
		return true
	}
	_, err := fmt.Sscanf(version, "%d.%d", &major, &minor)
	return err == nil && (major > sinceMajor || major == sinceMajor && minor >= sinceMinor)
}

// Feature is of a kernel, and wanted by some part of Fairlead or by the lab.
type Feature struct {
	Name  string
	Probe string // for the guest's shell, in a network namespace of its own
}

// Features lists what is looked for on every kernel. What is missing fails no
// suite by itself.
func Features() []Feature {
	device := func(options string) string { return "ip link add probe type " + options }
	rule := func(hook, rule string) string {
		return "nft 'table inet t { flowtable f { hook ingress priority 0; }; chain c { type filter hook " + hook + " priority 0; " + rule + "; }; }'"
	}
	return []Feature{
		{"vxlan device", device("vxlan id 1 dstport 4789 local 127.0.0.1")},
		{"ipip device", device("ipip local 127.0.0.1 remote 127.0.0.2")},
		{"ip6tnl device", device("ip6tnl local ::1 remote ::2")},
		{"wireguard device", device("wireguard")},
		{"tun device", "ip tuntap add probe mode tun"},
		{"netkit device", device("netkit")},
		{"IPVS", "modprobe ip_vs"},
		{"netem", "ip link set lo up && tc qdisc add dev lo root netem delay 1ms"},
		{"clsact", "tc qdisc add dev lo clsact"},
		{"BPF type format", "[ -s /sys/kernel/btf/vmlinux ]"},
		{"nft flowtable", rule("forward", "ip protocol tcp flow add @f")},
		{"nft fib, numgen", rule("prerouting", "fib daddr type local ct mark set numgen random mod 8")},
		{"nft tproxy, socket", rule("prerouting", "meta l4proto tcp socket transparent 1 tproxy ip to :80")},
		{"cgroup.kill", "mkdir -p /sys/fs/cgroup/probe && [ -e /sys/fs/cgroup/probe/cgroup.kill ]"},
	}
}

// Status is how a suite ended on a kernel.
type Status string

// A suite that Crashed took the kernel or the machine's time with it; those
// after it are NotRun. It is Skipped if each of its tests is.
const (
	Passed  Status = "ok"
	Failed  Status = "FAIL"
	Skipped Status = "skipped"
	Crashed Status = "CRASH"
	NotRun  Status = ""
)

// Result is of a suite on a kernel.
type Result struct {
	Status Status
	Took   time.Duration
	Passes int      // tests, with their subtests
	Fails  []string // the innermost ones
	Skips  []string // "name: reason"
	Slow   []string // tests that took more than slow, in their order: "name 12s"
}

// slow is what is worth to be looked at where a kernel has five minutes.
const slow = 5 * time.Second

// ParseLog reads what a test binary wrote with -test.v, and whether it exited
// with success. If not, a test without an end counts as failed.
func ParseLog(log string, ok bool, took time.Duration) Result {
	r := Result{Status: Passed, Took: took}
	var failed, open []string
	said := ""
	for line := range strings.Lines(log) {
		if reason := saying.FindStringSubmatch(line); reason != nil {
			said = reason[1]
		}
		if name, ok := strings.CutPrefix(line, "=== RUN "); ok {
			open = append(open, strings.TrimSpace(name))
		}
		verdict := verdict.FindStringSubmatch(line)
		if verdict == nil {
			continue
		}
		open = slices.DeleteFunc(open, func(name string) bool { return name == verdict[2] })
		if took, err := time.ParseDuration(verdict[3]); err == nil && took > slow && !strings.Contains(verdict[2], "/") {
			r.Slow = append(r.Slow, fmt.Sprintf("%s %.0fs", verdict[2], took.Seconds()))
		}
		switch name := verdict[2]; verdict[1] {
		case "PASS":
			r.Passes++
		case "FAIL":
			failed = append(failed, name)
		case "SKIP":
			r.Skips = append(r.Skips, name+": "+said)
		}
	}
	if !ok {
		failed = append(failed, open...)
	}
	slices.Sort(failed)
	for _, name := range slices.Compact(failed) { // the log of another binary may be in this one's
		if !slices.ContainsFunc(failed, func(other string) bool { return strings.HasPrefix(other, name+"/") }) {
			r.Fails = append(r.Fails, name)
		}
	}
	switch {
	case !ok:
		r.Status = Failed
	case r.Passes == 0 && len(r.Skips) > 0:
		r.Status = Skipped
	}
	return r
}

var (
	verdict = regexp.MustCompile(`^\s*--- (PASS|FAIL|SKIP): (\S+) \((\S+)\)`)
	saying  = regexp.MustCompile(`^\s+\w+\.go:\d+: (.*)`)
)

// Column is what was found of a kernel.
type Column struct {
	Release  string            // as uname -r says
	Results  map[string]Result // by the suite's package
	Features map[string]bool   // by name
}

// Matrix is a table of kernels, suites and features, and below it what was
// skipped and why.
func Matrix(suites []Suite, columns []*Column) string {
	var text, notes strings.Builder
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	row := func(name string, cell func(*Column) string) {
		for _, column := range columns {
			name += "\t" + cell(column)
		}
		fmt.Fprintln(table, name)
	}
	row("", func(c *Column) string { return c.Release })
	for _, suite := range suites {
		row(suite.Package, func(c *Column) string {
			result := c.Results[suite.Package]
			for _, skip := range result.Skips {
				fmt.Fprintf(&notes, "skipped on %s: %s: %s\n", c.Release, suite.Package, skip)
			}
			return result.String()
		})
	}
	for _, feature := range Features() {
		row(feature.Name, func(c *Column) string {
			found, ok := c.Features[feature.Name]
			switch {
			case !ok:
				return "not run"
			case !found:
				return "no"
			}
			return "yes"
		})
	}
	table.Flush()
	return text.String() + notes.String()
}

// String is the result in a cell of the matrix.
func (r Result) String() string {
	switch r.Status {
	case NotRun:
		return "not run"
	case Crashed:
		return fmt.Sprintf("%s after %.0fs", r.Status, r.Took.Seconds())
	}
	return fmt.Sprintf("%s %.0fs (%d passed, %d failed, %d skipped)", r.Status, r.Took.Seconds(), r.Passes, len(r.Fails), len(r.Skips))
}
