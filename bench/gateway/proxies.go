package main

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"flag"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/fairlead-net/fairlead/servers/gateway"
)

// process is a server that runs.
type process struct {
	command *exec.Cmd
}

func launch(dir, program string, args ...string) (*process, error) {
	log, err := os.Create(filepath.Join(dir, filepath.Base(program)+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p := &process{exec.Command(program, args...)}
	p.command.Stdout, p.command.Stderr = log, log
	p.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := p.command.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	return p, nil
}

func (p *process) stop() {
	_ = p.command.Process.Signal(syscall.SIGTERM)
	_ = p.command.Wait()
}

// cpu is the time that it and its children have used of any core.
func (p *process) cpu() (total time.Duration, err error) {
	pid := p.command.Process.Pid
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return 0, err
	}
	for _, pid := range append(strings.Fields(string(children)), strconv.Itoa(pid)) {
		// The time that its threads ran, in nanoseconds: more precise than ticks.
		tasks, err := filepath.Glob("/proc/" + pid + "/task/*/schedstat")
		if err != nil {
			return 0, err
		}
		for _, task := range tasks {
			content, err := os.ReadFile(task)
			if err != nil {
				continue // the thread has ended
			}
			first, _, _ := strings.Cut(string(content), " ")
			n, err := strconv.ParseInt(first, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read the time of the server: %w", err)
			}
			total += time.Duration(n)
		}
	}
	return total, nil
}

// proxy is one that is measured.
type proxy struct {
	name  string
	start func() (p *process, plain, secure string, err error)
}

const nginxCommon = `daemon off; worker_processes %s; error_log stderr error; pid %s/%s.pid; worker_rlimit_nofile 65536;
events { worker_connections 8192; }
http {
  access_log off; tcp_nodelay on; sendfile on; tcp_nopush on; keepalive_requests 100000000; keepalive_timeout 75s;
  client_body_temp_path %[2]s/body; proxy_temp_path %[2]s/proxy; fastcgi_temp_path %[2]s/f; uwsgi_temp_path %[2]s/u; scgi_temp_path %[2]s/s;
`

func nginxFile(dir, name, workers, rest string) (string, error) {
	file := filepath.Join(dir, name+".conf")
	return file, os.WriteFile(file, []byte(fmt.Sprintf(nginxCommon, workers, dir, name)+rest+"}\n"), 0o644)
}

// startBackend starts what both proxies pass requests on to.
func startBackend(dir string) (*process, string, error) {
	at, err := freeAddress()
	if err != nil {
		return nil, "", err
	}
	if err := os.WriteFile(filepath.Join(dir, "large"), make([]byte, 16<<20), 0o644); err != nil {
		return nil, "", err
	}
	file, err := nginxFile(dir, "backend", "1", fmt.Sprintf(`server { listen %s; root %s;
    location = /small { return 200 "hello from the backend, in a few words\n"; } }
`, at, dir))
	if err != nil {
		return nil, "", err
	}
	p, err := launch(dir, "nginx", "-c", file, "-p", dir)
	if err != nil {
		return nil, "", err
	}
	return p, at, answers(at)
}

func nginxProxy(s settings, backend string) proxy {
	return proxy{"nginx", func() (*process, string, string, error) {
		plain, secure, err := freeAddresses()
		if err != nil {
			return nil, "", "", err
		}
		file, err := nginxFile(s.dir, "proxy", "auto", fmt.Sprintf(`
  upstream backend { server %s; keepalive 64; keepalive_requests 100000000; }
  ssl_certificate %[4]s/cert.pem; ssl_certificate_key %[4]s/key.pem; ssl_protocols TLSv1.2 TLSv1.3; ssl_session_tickets off;
  proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host;
  proxy_set_header X-Real-IP $remote_addr; proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Host $http_host;
  proxy_set_header X-Forwarded-Port $server_port; proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Scheme $scheme;
  proxy_set_header X-Request-ID $request_id; proxy_max_temp_file_size 0;
  server { listen %[2]s reuseport; listen %[3]s ssl http2 reuseport; location / { proxy_pass http://backend; } }
`, backend, plain, secure, s.dir))
		if err != nil {
			return nil, "", "", err
		}
		p, err := launch(s.dir, "nginx", "-c", file, "-p", s.dir)
		if err != nil {
			return nil, "", "", err
		}
		return p, plain, secure, answers(plain)
	}}
}

const serveVerb = "serve"

func fairleadProxy(s settings, backend string) proxy {
	return proxy{"fairlead", func() (*process, string, string, error) {
		plain, secure, err := freeAddresses()
		if err != nil {
			return nil, "", "", err
		}
		self, err := os.Executable()
		if err != nil {
			return nil, "", "", err
		}
		p, err := launch(s.dir, self, serveVerb, "-plain", plain, "-secure", secure, "-backend", backend, "-dir", s.dir, "-profile", s.profile, "-heap", s.heap, "-garbage", strconv.Itoa(cmp.Or(s.garbage, 400)))
		if err != nil {
			return nil, "", "", err
		}
		return p, plain, secure, answers(plain)
	}}
}

// everything goes to one backend.
type everything struct {
	route   gateway.Route
	backend gateway.Backend
}

func (e *everything) Route(*gateway.Request) (*gateway.Route, *gateway.Backend) {
	return &e.route, &e.backend
}

// serve is what the process of Fairlead does.
func serve(args []string) error {
	flags := flag.NewFlagSet(serveVerb, flag.ExitOnError)
	plain, secure := flags.String("plain", "", "where to listen"), flags.String("secure", "", "where to listen for TLS")
	backend, dir := flags.String("backend", "", "where requests go"), flags.String("dir", "", "of the certificate")
	profile := flags.String("profile", "", "a file for a CPU profile")
	heap := flags.String("heap", "", "a file for a profile of memory, at SIGUSR1")
	garbage := flags.Int("garbage", 400, "GOGC")
	_ = flags.Parse(args)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	debug.SetGCPercent(*garbage)
	certificate, err := tls.LoadX509KeyPair(filepath.Join(*dir, "cert.pem"), filepath.Join(*dir, "key.pem"))
	if err != nil {
		return err
	}
	if *profile != "" {
		file, err := os.Create(*profile)
		if err != nil {
			return err
		}
		defer file.Close()
		if err := pprof.StartCPUProfile(file); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	saveHeap(*heap)
	s := gateway.New(gateway.Settings{Drain: time.Second, DrainIdle: time.Millisecond, Clients: 1 << 20}, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	s.Serve(&gateway.Table{
		Router:      &everything{backend: gateway.Backend{Endpoints: []netip.AddrPort{netip.MustParseAddrPort(*backend)}}},
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &certificate, nil },
	})
	at := netip.MustParseAddrPort(*secure)
	s.Listen([]gateway.Listener{{At: netip.MustParseAddrPort(*plain)}, {At: at, Secure: true}, {At: at, Secure: true, HTTP3: true}})
	return s.Run(ctx)
}

// saveHeap writes a profile of memory whenever it is asked for.
func saveHeap(to string) {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGUSR1)
	go func() {
		for range asked {
			if file, err := os.Create(to); err == nil {
				runtime.GC()
				_ = pprof.WriteHeapProfile(file)
				_ = file.Close()
			}
		}
	}()
}

// writeCertificate writes one of ECDSA P-256, signed by itself.
func writeCertificate(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"}, DNSNames: []string{"bench"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "cert.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600)
}

func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a port: %w", err)
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}

func freeAddresses() (one, another string, err error) {
	if one, err = freeAddress(); err != nil {
		return "", "", err
	}
	another, err = freeAddress()
	return one, another, err
}

// answers waits until somebody listens.
func answers(at string) error {
	for range 500 {
		if conn, err := net.Dial("tcp", at); err == nil {
			return conn.Close()
		}
		time.Sleep(10 * time.Millisecond) // nobody tells
	}
	return fmt.Errorf("nobody listens at %s", at)
}
