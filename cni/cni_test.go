package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"
)

// pair is two connected sockets.
func pair(t *testing.T) (here, there *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ends := [2]*net.UnixConn{}
	for i, fd := range fds {
		file := os.NewFile(uintptr(fd), "pair")
		conn, err := net.FileConn(file)
		if err != nil {
			t.Fatal(err)
		}
		file.Close()
		ends[i] = conn.(*net.UnixConn)
		t.Cleanup(func() { conn.Close() })
	}
	return ends[0], ends[1]
}

func TestRequestCarriesTheNamespace(t *testing.T) {
	here, there := pair(t)
	netns, err := os.Open("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer netns.Close()
	// Longer than a socket holds, so that it takes several reads.
	want := &Request{
		Version: Version, Command: "ADD", ContainerID: "c", Interface: "eth0", Netns: "/run/netns/c", Args: "A=b",
		Config: json.RawMessage(`{"name":"` + strings.Repeat("x", 1<<20) + `"}`), Timeout: time.Second,
	}
	sent := make(chan error, 1)
	go func() { sent <- WriteRequest(here, want, netns) }()
	got, received, err := ReadRequest(there)
	if err != nil {
		t.Fatal(err)
	}
	defer received.Close()
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if string(got.Config) != string(want.Config) {
		t.Error("the configuration was changed")
	}
	got.Config, want.Config = nil, nil
	if asText(t, got) != asText(t, want) {
		t.Errorf("sent %+v, received %+v", want, got)
	}
	var ours, theirs unix.Stat_t
	if unix.Fstat(int(netns.Fd()), &ours) != nil || unix.Fstat(int(received.Fd()), &theirs) != nil || ours.Ino != theirs.Ino {
		t.Errorf("another file was received: %d, not %d", theirs.Ino, ours.Ino)
	}
	if flags, err := unix.FcntlInt(received.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Error("the namespace would leak into child processes")
	}
}

func asText(t *testing.T, value any) string {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestBadRequestsAreRefused(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "not JSON": "garbage", "cut off": `{"version": 1, "comm`, "no version": `{"command": "ADD"}`,
		"of the future": `{"version": 2}`, "too long": strings.Repeat(" ", maxMessage+1),
	} {
		t.Run(name, func(t *testing.T) {
			here, there := pair(t)
			go func() {
				_, _, _ = here.WriteMsgUnix([]byte(text), unix.UnixRights(0, 1, 2), nil)
				_ = here.CloseWrite()
			}()
			before := openFiles(t)
			request, netns, err := ReadRequest(there)
			if err == nil || netns != nil {
				t.Errorf("got %+v, %v", request, netns)
			}
			if after := openFiles(t); after > before {
				t.Errorf("%d files are open, %d were", after, before)
			}
		})
	}
}

// A request that is cut off by a deadline is an error like others.
func TestHalfRequest(t *testing.T) {
	here, there := pair(t)
	if _, err := here.Write([]byte(`{"version": 1, "comm`)); err != nil {
		t.Fatal(err)
	}
	if err := there.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if request, _, err := ReadRequest(there); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %+v, %v", request, err)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}

// An older side's messages are understood, and what a newer one adds is not in
// the way.
func TestOlderAndNewerMessages(t *testing.T) {
	here, there := pair(t)
	go func() {
		_, _ = here.Write([]byte(`{"version": 1, "command": "DEL", "containerID": "c", "news": {"a": 1}}`))
		_ = here.CloseWrite()
	}()
	if request, _, err := ReadRequest(there); err != nil || request.Command != "DEL" || request.Timeout != 0 {
		t.Errorf("got %+v, %v", request, err)
	}
}

// agentAt answers one request on a socket, which it makes as an agent does:
// under another name, so that it is there only when it is listened on.
func agentAt(t *testing.T, path string, reply *Reply) {
	t.Helper()
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path + ".new", Net: "unix"})
	if err == nil {
		defer listener.Close()
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		t.Error(err)
		return
	}
	conn, err := listener.AcceptUnix()
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	if _, netns, err := ReadRequest(conn); err != nil {
		t.Error(err)
	} else if netns != nil {
		netns.Close()
	}
	if err := WriteReply(conn, reply); err != nil {
		t.Error(err)
	}
}

func arguments(socket string) *skel.CmdArgs {
	return &skel.CmdArgs{
		ContainerID: "c", IfName: "eth0", Netns: "/proc/self/ns/net",
		StdinData: []byte(`{"cniVersion": "1.0.0", "name": "fairlead", "socket": "` + socket + `"}`),
	}
}

// ADD waits for an agent whose directory is not there yet, and for one that
// left its socket when it was killed.
func TestAskWaitsForTheAgent(t *testing.T) {
	for _, killed := range []bool{false, true} {
		socket := filepath.Join(t.TempDir(), "run", "cni.sock")
		if killed {
			if err := os.Mkdir(filepath.Dir(socket), 0o755); err != nil {
				t.Fatal(err)
			}
			listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
			if err != nil {
				t.Fatal(err)
			}
			listener.SetUnlinkOnClose(false)
			listener.Close()
		}
		answered := make(chan struct{})
		go func() {
			defer close(answered)
			for {
				// As soon as the plugin waits: it has made the directory.
				if _, err := os.Stat(filepath.Dir(socket)); err == nil {
					break
				}
				time.Sleep(time.Millisecond)
			}
			agentAt(t, socket, &Reply{Version: Version, Result: &types100.Result{CNIVersion: "1.1.0"}})
		}()
		result, err := ask(arguments(socket), "ADD", 5*time.Second)
		if err != nil || result == nil {
			t.Errorf("killed %v: %v, %v", killed, result, err)
		}
		<-answered
	}
}

// A DEL that no agent takes waits for one, but not any number of them, and not where
// Fairlead was uninstalled while the plugin ran.
func TestSpool(t *testing.T) {
	run := filepath.Join(t.TempDir(), "run")
	socket := filepath.Join(run, "cni.sock")
	del := func(container string) error {
		args := arguments(socket)
		args.ContainerID = container
		return discard(args, "DEL", 20*time.Millisecond)
	}
	if err := del("c"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(run); !os.IsNotExist(err) {
		t.Errorf("with nothing of Fairlead's there: %v", err)
	}
	if err := os.Mkdir(run, 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := del("c"); err != nil {
			t.Fatal(err)
		}
	}
	dir := SpoolDir(socket)
	request, err := ReadSpooled(filepath.Join(dir, SpoolName("c", "eth0")))
	if err != nil || request.ContainerID != "c" || request.Interface != "eth0" || request.Config != nil {
		t.Errorf("got %+v, %v", request, err)
	}
	if stat, err := os.Stat(dir); err != nil || stat.Mode().Perm() != 0o700 {
		t.Errorf("the directory has %v, %v", stat.Mode(), err)
	}
	for n := 1; n < maxSpooled; n++ {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(n)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var said *types.Error
	if err := del("d"); !errors.As(err, &said) || said.Code != types.ErrTryAgainLater || !strings.Contains(said.Details, "4096 wait") {
		t.Errorf("one too many: %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != maxSpooled {
		t.Errorf("%d wait, %v", len(left), err)
	}
}

// Errors keep the agent's code; an agent that is not there has one as well.
func TestErrors(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "cni.sock")
	for _, test := range []struct {
		command string
		code    uint
	}{{"CHECK", types.ErrTryAgainLater}, {"STATUS", types.ErrPluginNotAvailable}} {
		err := discard(arguments(socket), test.command, 20*time.Millisecond)
		var said *types.Error
		if !errors.As(err, &said) || said.Code != test.code || !strings.Contains(said.Details, "kubectl") {
			t.Errorf("%s without an agent: %#v", test.command, err)
		}
	}
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		agentAt(t, socket, &Reply{Version: Version, Error: types.NewError(100, "no", "because")})
	}()
	_, err := ask(arguments(socket), "ADD", 5*time.Second)
	var said *types.Error
	if !errors.As(err, &said) || said.Code != 100 || said.Error() != "no; because" {
		t.Errorf("got %#v", err)
	}
	<-answered
	if err := os.WriteFile(ReadyFile(socket), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Plugin().Status(arguments(socket)); err != nil {
		t.Errorf("STATUS of a node that was ready, without an agent: %v", err)
	}
	args := arguments(socket)
	args.Netns = "/nowhere"
	if _, err := ask(args, "ADD", time.Second); !errors.As(err, &said) || said.Code != types.ErrInvalidNetNS {
		t.Errorf("without a namespace: %#v", err)
	}
}
