// Package cni is the protocol between the CNI plugin, which a container runtime
// runs for each pod, and the agent of the node: the messages, both ends of the
// socket, and the plugin itself. It does no work on the network; that is the
// agent's. Everything in it may be called concurrently.
package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"
)

// Version is the newest version of the protocol. Fields that a side does not
// know are ignored, so it grows only when that would do harm.
const Version = 1

// maxMessage in bytes bounds what either side reads. GC lists all attachments
// of a node, about 100 bytes each.
const maxMessage = 4 << 20

// Request is what the plugin asks of the agent: the environment and the
// configuration that the runtime gave it (CNI specification, section 2). The
// pod's network namespace travels along as a file descriptor, so that the agent
// depends on no path in the runtime's mount namespace.
type Request struct {
	Version     int             `json:"version"`
	Command     string          `json:"command"` // ADD, DEL, CHECK, GC or STATUS
	ContainerID string          `json:"containerID,omitempty"`
	Interface   string          `json:"interface,omitempty"`
	Netns       string          `json:"netns,omitempty"` // its path, to be repeated in the result
	Args        string          `json:"args,omitempty"`  // CNI_ARGS: K8S_POD_NAMESPACE=…;K8S_POD_NAME=…
	Config      json.RawMessage `json:"config,omitempty"`
	Timeout     time.Duration   `json:"timeout,omitempty"` // in nanoseconds: how long the plugin waits
}

// Reply is the agent's answer: a result, for ADD, or an error, or neither.
type Reply struct {
	Version int              `json:"version"`
	Result  *types100.Result `json:"result,omitempty"`
	Error   *types.Error     `json:"error,omitempty"`
}

// WriteRequest sends the request with the namespace, which may be nil, and then
// the end of the stream.
func WriteRequest(conn *net.UnixConn, request *Request, netns *os.File) error {
	message, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	var rights []byte
	if netns != nil {
		rights = unix.UnixRights(int(netns.Fd()))
	}
	sent, _, err := conn.WriteMsgUnix(message, rights, nil)
	if err == nil {
		_, err = conn.Write(message[sent:])
	}
	if err == nil {
		err = conn.CloseWrite()
	}
	if err != nil {
		return fmt.Errorf("send request: %w", err)
	}
	return nil
}

// ReadRequest receives a request and its namespace, nil if none was sent. The
// caller closes it. An error may come with a request of which at least the
// version could be read.
func ReadRequest(conn *net.UnixConn) (*Request, *os.File, error) {
	message, netns, err := readAll(conn)
	request := &Request{}
	if err == nil {
		err = json.Unmarshal(message, request)
	}
	if err == nil && (request.Version < 1 || request.Version > Version) {
		err = fmt.Errorf("version %d of the protocol is not known, 1 to %d are", request.Version, Version)
	}
	if err != nil {
		if netns != nil {
			err = errors.Join(err, netns.Close())
		}
		return nil, nil, fmt.Errorf("read request: %w", err)
	}
	return request, netns, nil
}

// readAll reads to the end of the stream. Of several descriptors, the first is
// kept: the plugin sends only one.
func readAll(conn *net.UnixConn) (message []byte, netns *os.File, err error) {
	buffer, control := make([]byte, 16<<10), make([]byte, unix.CmsgSpace(4*4))
	for {
		n, controls, _, _, err := conn.ReadMsgUnix(buffer, control)
		for _, file := range received(control[:controls]) {
			if netns == nil {
				netns = file
			} else {
				_ = file.Close()
			}
		}
		message = append(message, buffer[:max(n, 0)]...) // it is -1 with some errors
		switch {
		case errors.Is(err, io.EOF), err == nil && n == 0:
			return message, netns, nil
		case err != nil:
			return nil, netns, err
		case len(message) > maxMessage:
			return nil, netns, fmt.Errorf("it is longer than %d bytes", maxMessage)
		}
	}
}

func received(control []byte) (files []*os.File) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "netns"))
		}
	}
	return files
}

// WriteReply sends the answer; the caller closes the connection.
func WriteReply(conn *net.UnixConn, reply *Reply) error {
	if err := json.NewEncoder(conn).Encode(reply); err != nil {
		return fmt.Errorf("send reply: %w", err)
	}
	return nil
}

// ReadReply receives the answer.
func ReadReply(conn *net.UnixConn) (*Reply, error) {
	reply := &Reply{}
	if err := json.NewDecoder(io.LimitReader(conn, maxMessage)).Decode(reply); err != nil {
		return nil, fmt.Errorf("read reply: %w", err)
	}
	return reply, nil
}
