package lab

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/rogpeppe/go-internal/testscript"
)

const http3Usage = "usage: http3 ask FROM ADDRESS URL PATTERN, http3 begin NAME FROM ADDRESS URL, or http3 end NAME"

// asking3 asks again and again by HTTP/3, by one connection for as long as the server
// keeps it.
type asking3 struct {
	client *client3
	stop   context.CancelFunc
	ended  chan struct{}
	asked  int
	failed []error
}

// http3 has a place ask a URL by HTTP/3, at some address: until what is answered
// matches; or, from now on, twenty times a second, of which none may fail.
func (s *stories) http3(ts *testscript.TestScript, neg bool, args []string) {
	switch {
	case !neg && len(args) == 5 && args[0] == "ask":
		pattern, err := regexp.Compile("(?m)" + args[4])
		ts.Check(err)
		client := s.client3(ts, args[1], args[2])
		defer client.close()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		text := ""
		for ctx.Err() == nil {
			if text, err = client.ask(ctx, args[3]); err == nil && pattern.MatchString(text) {
				return
			}
			pause(ctx, 200*time.Millisecond)
		}
		ts.Fatalf("it did not come about in %s; the last answer was %q, %v", patience, text, err)
	case !neg && len(args) == 5 && args[0] == "begin":
		ctx, cancel := context.WithCancel(context.Background())
		a := &asking3{client: s.client3(ts, args[2], args[3]), stop: cancel, ended: make(chan struct{})}
		s.asking3[args[1]] = a
		go a.run(ctx, args[4])
		ts.Defer(func() { // if the story fails before it ends it
			delete(s.asking3, args[1])
			cancel()
			<-a.ended
		})
	case !neg && len(args) == 2 && args[0] == "end" && s.asking3[args[1]] != nil:
		a := s.asking3[args[1]]
		delete(s.asking3, args[1])
		a.stop()
		<-a.ended
		ts.Logf("%d requests by HTTP/3 on %d connections, of which %d failed", a.asked, a.client.dials, len(a.failed))
		if len(a.failed) > 0 || a.asked == 0 {
			ts.Fatalf("%v", errors.Join(a.failed...))
		}
	default:
		ts.Fatalf(http3Usage)
	}
}

func (a *asking3) run(ctx context.Context, url string) {
	defer close(a.ended)
	defer a.client.close()
	for ctx.Err() == nil {
		began := time.Now()
		// Whoever waits for longer than this has lost what was under way.
		each, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		_, err := a.client.ask(each, url)
		cancel()
		a.asked++
		if err != nil && len(a.failed) < 5 {
			a.failed = append(a.failed, fmt.Errorf("request %d: %w", a.asked, err))
		}
		pause(ctx, 50*time.Millisecond-time.Since(began))
	}
}

// client3 is a client in a network namespace, which has a socket for each connection,
// as browsers have.
type client3 struct {
	netns *os.File
	http  *http3.Transport

	mu      sync.Mutex
	dials   int
	sockets []*net.UDPConn
}

func (s *stories) client3(ts *testscript.TestScript, from, at string) *client3 {
	netns, err := s.netns(ts.Getenv(namespaceVariable), from)
	ts.Check(err)
	to, err := netip.ParseAddrPort(at)
	ts.Check(err)
	c := &client3{netns: netns}
	c.http = &http3.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // its certificate is the story's own
		Dial: func(ctx context.Context, _ string, config *tls.Config, quicConfig *quic.Config) (*quic.Conn, error) {
			socket, err := c.socket()
			if err != nil {
				return nil, err
			}
			return quic.Dial(ctx, socket, net.UDPAddrFromAddrPort(to), config, quicConfig)
		},
	}
	return c
}

func (c *client3) socket() (socket *net.UDPConn, err error) {
	err = within(c.netns, func() error {
		socket, err = net.ListenUDP("udp", nil)
		return err
	})
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dials++
	c.sockets = append(c.sockets, socket)
	return socket, nil
}

// ask returns what is answered with 200.
func (c *client3) ask(ctx context.Context, url string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return "", err
	}
	response, err := c.http.RoundTrip(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s %s", response.Status, strings.TrimSpace(string(body)))
	}
	return string(body), err
}

func (c *client3) close() {
	_ = c.http.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, socket := range c.sockets {
		_ = socket.Close()
	}
	_ = c.netns.Close()
}
