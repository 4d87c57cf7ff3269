package agent

import (
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/model"
)

func run(t testing.TB, command string) string {
	t.Helper()
	words := strings.Fields(command)
	out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v\n%s", command, err, out)
	}
	return string(out)
}

// What somebody changes of a pod's link, on the node, is as it was within a
// second, and the pod can be reached; nothing else makes the agent look.
func TestPodLinkIsMended(t *testing.T) {
	needNode(t)
	cluster := newCluster("10.244.1.0/24", "fd00:1::/64")
	a := start(t, cluster, t.TempDir())
	p := newPod(t, "pod")
	if reply := a.ask(t, request("ADD", "pod"), p.netns); reply.Error != nil {
		t.Fatal(reply.Error)
	}
	dev := deviceName(keyOf("pod"))
	host, pod := hardware(keyOf("pod"))
	look := func() string {
		out := run(t, "ip -o addr show dev "+dev) + run(t, "ip neigh show nud permanent dev "+dev) +
			run(t, "ip -6 neigh show nud permanent dev "+dev) + run(t, "ip -d -o link show "+dev) +
			run(t, "ip route show dev "+dev) + run(t, "ip -6 route show proto 175 dev "+dev)
		lines := strings.Split(out, "\n")
		slices.Sort(lines)
		return strings.Join(slices.Compact(lines), "\n")
	}
	limit := time.Second
	if os.Getenv("FAIRLEAD_LAB_GUEST") != "" {
		limit *= 20 // in an emulator, to look takes a second
	}
	before := look()
	for _, part := range []string{"169.254.1.1/32", "fe80::1/64", "10.244.1.1", "fd00:1::1", host.String(), pod.String(), "group 175"} {
		if !strings.Contains(before, part) {
			t.Fatalf("no %s in\n%s", part, before)
		}
	}
	for _, tampering := range []string{
		"ip addr del 169.254.1.1/32 dev DEV", "ip addr del fe80::1/64 dev DEV", "ip addr flush dev DEV",
		"ip neigh del 10.244.1.1 dev DEV", "ip -6 neigh del fd00:1::1 dev DEV",
		"ip neigh replace 10.244.1.1 lladdr 02:00:00:00:00:99 nud reachable dev DEV",
		"ip link set DEV down", "ip link set DEV group 0", "ip link set DEV address 02:00:00:00:00:98", "ip link set DEV alias other",
		"ip route del 10.244.1.1 dev DEV", "ip -6 route del fd00:1::1 dev DEV",
	} {
		run(t, strings.ReplaceAll(tampering, "DEV", dev))
		began := time.Now()
		for {
			now := look()
			if now == before {
				t.Logf("%s: mended after %v", tampering, time.Since(began).Round(time.Millisecond))
				break
			}
			if time.Since(began) > limit {
				t.Errorf("%s: not mended within %v; there is\n%s\nthere was\n%s", tampering, limit, now, before)
				return
			}
		}
		// The next one is to be mended at once, too.
		if !strings.Contains(tampering, "alias") {
			time.Sleep(100 * time.Millisecond)
		}
	}
}

// A pod's link that could not be mended, or of which somebody is making something, is
// looked at again, and others do not wait for it.
func TestLinkThatIsNotMendedIsLeft(t *testing.T) {
	feed := &model.Feed{}
	device := deviceName(keyOf("pod"))
	feed.Edit(func(s *model.Snapshot) {
		s.Attachments = s.Attachments.With(keyOf("pod"), &model.Attachment{AttachmentKey: keyOf("pod"), Device: device})
	})
	m := &mender{feed: feed, attacher: &attacher{}, log: slog.New(slog.DiscardHandler), left: map[string]struct{}{}}
	look := func() bool {
		m.due = map[string]struct{}{device: {}}
		clear(m.left)
		m.mendDue(t.Context())
		_, left := m.left[device]
		return left
	}
	var limit unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: limit.Max}))
	out := look()
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
	if !out {
		t.Error("without a file descriptor: forgotten")
	}
	unlock := m.attacher.busy.lock(keyOf("pod"))
	looked := make(chan bool)
	go func() { looked <- look() }()
	select {
	case left := <-looked:
		if !left {
			t.Error("while the pod is attached: forgotten")
		}
		unlock()
	case <-time.After(10 * time.Second):
		t.Error("it waits for who attaches the pod")
		unlock()
		<-looked
	}
	if look() {
		t.Error("it is left although there is no such link")
	}
}
