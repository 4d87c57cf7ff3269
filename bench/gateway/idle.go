package main

import (
	"bufio"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"golang.org/x/sys/unix"
)

const idleVerb = "idle"

// crowd is clients of one kind, who want nothing, or take it slowly.
type crowd struct {
	name string
	most int // of them, since those that measure need memory as well
	// come makes one, and returns once it has what it came for.
	come func(at string, n int) (io.Closer, error)
	tls  bool
	each int // descriptors that a process has for each: of the gateway, or of this one with the backend
}

func crowds() []crowd {
	const small = "GET /small HTTP/1.1\r\nHost: bench\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"
	slow := func(text string) func(string, int) (io.Closer, error) {
		return func(at string, n int) (io.Closer, error) { return say(at, n, text, "") }
	}
	return []crowd{
		{"idle, after a request", 100_000, func(at string, n int) (io.Closer, error) { return say(at, n, small, "few words\n") }, false, 1},
		{"idle, TLS", 10_000, comeByTLS, true, 1},
		{"idle, HTTP/2", 10_000, comeByHTTP2, true, 1},
		{"WebSocket", 10_000, func(at string, n int) (io.Closer, error) {
			return say(at, n, "GET /socket HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "\r\n\r\n")
		}, false, 2},
		{"a part of a head", 10_000, slow("GET /small HTTP/1.1\r\nHost: ben"), false, 1},
		{"a part of a body", 10_000, slow("POST /small HTTP/1.1\r\nHost: bench\r\nContent-Length: 1000000\r\n\r\npart"), false, 2},
		{"a part of a body, in chunks", 10_000, slow("POST /small HTTP/1.1\r\nHost: bench\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n"), false, 2},
		{"an answer that is awaited", 10_000, slow("GET /wait HTTP/1.1\r\nHost: bench\r\n\r\n"), false, 2},
		{"events, between two", 10_000, func(at string, n int) (io.Closer, error) {
			return say(at, n, "GET /events HTTP/1.1\r\nHost: bench\r\n\r\n", "event\n\r\n")
		}, false, 2},
		{"an answer of 16 MB that is not read", 1_000, slow("GET /large HTTP/1.1\r\nHost: bench\r\n\r\n"), false, 2},
	}
}

// idle is the program of the verb.
func idle(args []string) error {
	flags := flag.NewFlagSet(idleVerb, flag.ExitOnError)
	most := flags.Int("clients", 100_000, "at most, of each kind")
	only := flags.String("only", "", "one kind: what its name begins with")
	heap := flags.String("heap", "", "a file for a profile of the gateway's memory")
	_ = flags.Parse(args)
	_ = exec.Command("ip", "link", "set", "lo", "up").Run() // of a namespace of its own
	descriptors, err := raiseDescriptors()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "fairlead-bench-gateway-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := writeCertificate(dir); err != nil {
		return err
	}
	backend, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer backend.Close()
	go func() { _ = http.Serve(backend, http.HandlerFunc(beSlow)) }()
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	defer table.Flush()
	fmt.Fprintln(table, "clients\t\tmemory (RSS)\tbytes of each\tof the kernel's for TCP, both ends, all\tto come")
	for _, c := range crowds() {
		if !strings.HasPrefix(c.name, *only) {
			continue
		}
		n := min(c.most, *most)
		if room := (descriptors - spareDescriptors) / c.each; n > room {
			fmt.Fprintf(os.Stderr, "%s: %d, and not %d, since a process may have %d descriptors here (ulimit -Hn)\n", c.name, room, n, descriptors)
			n = room
		}
		if err := c.measure(table, settings{dir: dir, heap: *heap, garbage: muchLives}, backend.Addr().String(), n); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

// muchLives is at which garbage fairlead gateway collects beside so many clients, in
// percent of what lives.
const muchLives = 25

// spareDescriptors are for all but the clients.
const spareDescriptors = 300

// raiseDescriptors lets this process, and those that it starts, have as many as may be.
func raiseDescriptors() (int, error) {
	for _, n := range []uint64{1 << 20, 0} {
		limit := syscall.Rlimit{Cur: n, Max: n}
		if n == 0 { // only root in a real system may have more than are granted
			if err := syscall.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
				return 0, fmt.Errorf("how many descriptors a process may have: %w", err)
			}
			limit.Cur = limit.Max
		}
		if syscall.Setrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
			return int(limit.Cur), nil
		}
	}
	return 0, errors.New("more descriptors cannot be had")
}

// measure lets them come to a gateway of their own.
func (c *crowd) measure(to io.Writer, s settings, backend string, n int) error {
	p, at, secure, err := fairleadProxy(s, backend).start()
	if err != nil {
		return err
	}
	defer p.stop()
	if c.tls {
		at = secure
	}
	for i := range 200 { // what the first ones need is not theirs
		conn, err := c.come(at, i)
		if err != nil {
			return err
		}
		_ = conn.Close()
	}
	time.Sleep(time.Second)
	before, _ := p.memory()
	kernel := kernelMemory()
	began := time.Now()
	all := make([]io.Closer, 0, n)
	defer func() {
		for _, conn := range all {
			_ = conn.Close()
		}
	}()
	for i := range n {
		conn, err := c.come(at, i)
		if err != nil {
			return fmt.Errorf("client %d: %w", i, err)
		}
		all = append(all, conn)
	}
	took := time.Since(began)
	time.Sleep(time.Second) // what came last is to be read
	after, _ := p.memory()
	fmt.Fprintf(to, "%s\t%d\t%s\t%d\t%s\t%v\n", c.name, n, megabytes(after), (after-before)/int64(n), megabytes(kernelMemory()-kernel), took.Round(time.Millisecond))
	if s.heap != "" {
		_ = p.command.Process.Signal(syscall.SIGUSR1)
		time.Sleep(time.Second) // it tells nobody
	}
	return nil
}

// kernelMemory is what TCP has of all sockets, in bytes.
func kernelMemory() (n int64) {
	content, _ := os.ReadFile("/proc/net/sockstat")
	for line := range strings.Lines(string(content)) {
		var inuse, orphan, tw, alloc int64
		if _, err := fmt.Sscanf(line, "TCP: inuse %d orphan %d tw %d alloc %d mem %d", &inuse, &orphan, &tw, &alloc, &n); err == nil {
			return n * int64(os.Getpagesize())
		}
	}
	return 0
}

// bare is a socket, and nothing else of this process.
type bare int

func (b bare) Close() error { return unix.Close(int(b)) }

func (b bare) Read(into []byte) (int, error) {
	n, err := unix.Read(int(b), into)
	if err == nil && n == 0 {
		err = io.EOF
	}
	return n, err
}

// perAddress is how many connections come from one address, which has not many more ports.
const perAddress = 20_000

// say makes a client that says something, and hears what ends with a text.
func say(to string, n int, text, until string) (io.Closer, error) {
	host, port, err := net.SplitHostPort(to)
	if err != nil {
		return nil, err
	}
	at := &unix.SockaddrInet4{Addr: [4]byte(net.ParseIP(host).To4())}
	if _, err := fmt.Sscan(port, &at.Port); err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1),
		unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 1, byte(1 + n/perAddress)}}),
		unix.Connect(fd, at))
	if err == nil {
		_, err = unix.Write(fd, []byte(text))
	}
	if err == nil && until != "" {
		err = hear(bare(fd), until)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return bare(fd), nil
}

func hear(from io.Reader, until string) error {
	b := make([]byte, 1024)
	for n := 0; ; {
		m, err := from.Read(b[n:])
		if err != nil {
			return fmt.Errorf("%w after %q", err, b[:n])
		}
		if n += m; strings.HasSuffix(string(b[:n]), until) {
			return nil
		}
	}
}

func dialTLS(at string, n int, protocol string) (*tls.Conn, error) {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+n/perAddress))}, Control: func(_, _ string, raw syscall.RawConn) (err error) {
		failed := raw.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
		})
		return errors.Join(err, failed)
	}}
	conn, err := dialer.Dial("tcp", at)
	if err != nil {
		return nil, err
	}
	// Who they are does not matter here.
	secure := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}})
	return secure, secure.Handshake()
}

func comeByTLS(at string, n int) (io.Closer, error) {
	conn, err := dialTLS(at, n, "http/1.1")
	if err != nil {
		return nil, err
	}
	if _, err := io.WriteString(conn, "GET /small HTTP/1.1\r\nHost: bench\r\n\r\n"); err != nil {
		return nil, err
	}
	return conn, hear(conn, "few words\n")
}

func comeByHTTP2(at string, n int) (io.Closer, error) {
	conn, err := dialTLS(at, n, "h2")
	if err != nil {
		return nil, err
	}
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		return nil, err
	}
	framer := http2.NewFramer(conn, bufio.NewReader(conn))
	var block strings.Builder
	encoder := hpack.NewEncoder(&block)
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":path", "/small"}, {":authority", "bench"}} {
		_ = encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	err = errors.Join(framer.WriteSettings(), framer.WriteSettingsAck(),
		framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte(block.String()), EndStream: true, EndHeaders: true}))
	for err == nil {
		var f http2.Frame
		if f, err = framer.ReadFrame(); err == nil && f.Header().StreamID == 1 && f.Header().Flags.Has(http2.FlagDataEndStream) {
			return conn, nil
		}
	}
	return nil, err
}

// beSlow is the backend.
func beSlow(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/socket":
		echo(w)
	case "/wait":
		<-r.Context().Done()
	case "/events":
		_, _ = io.WriteString(w, "event\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	case "/large":
		_, _ = w.Write(make([]byte, 16<<20))
	default:
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "in a few words\n")
	}
}
