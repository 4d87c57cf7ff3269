package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// contender is a way to connect pods.
type contender struct {
	name, plugin, config string
}

// measure runs in the node's namespace.
func measure(ctx context.Context, dir string, pods, pairs int) error {
	socket, metrics, stop, err := startAgent(ctx, dir)
	if err != nil {
		return err
	}
	defer stop()
	ours := contender{"fairlead-cni", filepath.Join(dir, "fairlead-cni"),
		fmt.Sprintf(`{"cniVersion": "1.1.0", "name": "fairlead", "type": "fairlead-cni", "socket": %q}`, socket)}
	theirs := contender{"bridge + host-local", filepath.Join(dir, "bridge"),
		fmt.Sprintf(`{"cniVersion": "1.1.0", "name": "ref", "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false,
			"ipam": {"type": "host-local", "dataDir": %q, "subnet": "10.99.0.0/16", "routes": [{"dst": "0.0.0.0/0"}]}}`, filepath.Join(dir, "host-local-state"))}
	both := [2]*contender{&ours, &theirs}
	for n := range pods {
		for _, c := range both {
			if _, err := c.turn(ctx, dir, fmt.Sprint("stays", n), false); err != nil {
				return err
			}
		}
	}
	before, err := metrics()
	if err != nil {
		return err
	}
	var adds, dels [2][]float64
	for n := range pairs {
		order := []int{0, 1}
		if n%2 == 1 {
			order = []int{1, 0}
		}
		for _, i := range order {
			took, err := both[i].turn(ctx, dir, fmt.Sprint("comes", n), true)
			if err != nil {
				return err
			}
			adds[i] = append(adds[i], took[0].Seconds()*1000)
			dels[i] = append(dels[i], took[1].Seconds()*1000)
		}
	}
	after, err := metrics()
	if err != nil {
		return err
	}
	for verb, sample := range map[string]*[2][]float64{"ADD": &adds, "DEL": &dels} {
		for i, c := range both {
			fmt.Printf("%s of %-20s p50 %6.2f ms  p99 %6.2f ms\n", verb, c.name, quantile(sample[i], .5), quantile(sample[i], .99))
		}
		low, median, high := ratio(sample[0], sample[1])
		fmt.Printf("%s ratio %.2f (%.2f to %.2f)\n", verb, median, low, high)
	}
	fmt.Printf("the agent's own ADD with %d pods, of its histogram:\n%s", pods, between(before, after))
	return nil
}

// turn connects a pod and, unless it stays, disconnects it. It returns how long
// either took as a process.
func (c *contender) turn(ctx context.Context, dir, name string, leaves bool) (took [2]time.Duration, err error) {
	netns, err := newNetns()
	if err != nil {
		return took, err
	}
	if leaves {
		defer netns.Close()
	} // else it stays open, and so there
	for i, command := range []string{"ADD", "DEL"} {
		if i == 1 && !leaves {
			break
		}
		plugin := exec.CommandContext(ctx, c.plugin)
		plugin.Env = []string{
			"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + name, "CNI_IFNAME=eth0", "CNI_PATH=" + dir,
			fmt.Sprintf("CNI_NETNS=/proc/%d/fd/%d", os.Getpid(), netns.Fd()),
			"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=" + name, "PATH=" + os.Getenv("PATH"),
		}
		plugin.Stdin = strings.NewReader(c.config)
		began := time.Now()
		out, err := plugin.Output()
		took[i] = time.Since(began)
		if err != nil {
			return took, fmt.Errorf("%s by %s: %w: %s", command, c.name, err, out)
		}
	}
	return took, nil
}

// newNetns makes a network namespace that lives as long as the file is open.
func newNetns() (netns *os.File, err error) {
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			netns, err = os.Open("/proc/thread-self/ns/net")
		}
		made <- err
	}()
	if err := <-made; err != nil {
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	return netns, nil
}

// scrape returns the lines of the histogram of ADD.
func scrape(address string) ([]string, error) {
	reply, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		return nil, err
	}
	defer reply.Body.Close()
	var lines []string
	for scanner := bufio.NewScanner(reply.Body); scanner.Scan(); {
		if line := scanner.Text(); strings.HasPrefix(line, "fairlead_cni_duration_seconds_bucket{") && strings.Contains(line, `command="ADD"`) {
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		return nil, errors.Join(errors.New("the agent has no histogram"), drain(reply.Body))
	}
	return lines, nil
}

func drain(body io.Reader) error {
	_, err := io.Copy(io.Discard, body)
	return err
}

// freeAddress is one of loopback that nobody listens on.
func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}
