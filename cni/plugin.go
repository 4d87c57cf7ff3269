package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// DefaultSocket is where the agent listens if the configuration names no other.
const DefaultSocket = "/run/fairlead/cni.sock"

// How long the plugin waits for the agent. For ADD the agent may have to learn
// its node's range first; runtimes give a pod minutes. DEL is put down after
// that, and the others are tried again by those who ask.
const (
	addTimeout   = 29 * time.Second
	delTimeout   = 5 * time.Second
	otherTimeout = 10 * time.Second
	// dialTimeout is for an agent that is not there; one that restarts is soon.
	dialTimeout = time.Second
	// Of these, the agent gets less, so that its reason arrives.
	answerTime = time.Second
)

// Plugin is the body of the CNI plugin: each verb asks the agent and gives back
// its answer, or a types.Error.
func Plugin() skel.CNIFuncs {
	return skel.CNIFuncs{
		Add:    add,
		Del:    func(args *skel.CmdArgs) error { return discard(args, "DEL", delTimeout) },
		Check:  func(args *skel.CmdArgs) error { return discard(args, "CHECK", otherTimeout) },
		GC:     func(args *skel.CmdArgs) error { return discard(args, "GC", otherTimeout) },
		Status: status,
	}
}

// ReadyFile is beside the agent's socket, on a tmpfs, from when the agent can
// connect pods until the next reboot.
func ReadyFile(socket string) string { return filepath.Join(filepath.Dir(socket), "ready") }

// status does not ask an agent that was ready before: while it restarts, the
// node would be called not ready. An ADD waits for it.
func status(args *skel.CmdArgs) error {
	conf, err := configOf(args)
	if err != nil {
		return err
	}
	if _, err := os.Stat(ReadyFile(conf.Socket)); err == nil {
		return nil
	}
	return discard(args, "STATUS", 2*answerTime)
}

// config is what the plugin itself reads of its configuration.
type config struct {
	CNIVersion string `json:"cniVersion"`
	Socket     string `json:"socket"`
}

func configOf(args *skel.CmdArgs) (config, error) {
	conf := config{Socket: DefaultSocket}
	if err := json.Unmarshal(args.StdinData, &conf); err != nil {
		return conf, types.NewError(types.ErrDecodingFailure, "cannot read the network configuration", err.Error())
	}
	return conf, nil
}

func add(args *skel.CmdArgs) error {
	result, err := ask(args, "ADD", addTimeout)
	if err != nil {
		return err
	}
	if result == nil {
		return types.NewError(types.ErrInternal, "the Fairlead agent gave no result", "")
	}
	conf, err := configOf(args)
	if err != nil {
		return err
	}
	return types.PrintResult(result, conf.CNIVersion)
}

func discard(args *skel.CmdArgs, command string, timeout time.Duration) error {
	_, err := ask(args, command, timeout)
	return err
}

// ask sends the agent what the runtime asks and waits for the answer. All
// errors are types.Errors.
func ask(args *skel.CmdArgs, command string, timeout time.Duration) (*types100.Result, error) {
	deadline := time.Now().Add(timeout)
	conf, err := configOf(args)
	if err != nil {
		return nil, err
	}
	netns, err := openNetns(args.Netns, command)
	if err != nil {
		return nil, err
	}
	if netns != nil {
		defer netns.Close()
	}
	request := &Request{
		Version: Version, Command: command,
		ContainerID: args.ContainerID, Interface: args.IfName, Netns: args.Netns, Args: args.Args,
		Config: args.StdinData,
	}
	reply, err := exchange(conf.Socket, request, netns, deadline)
	switch {
	case err != nil && command == "DEL":
		if spoolErr := spool(conf.Socket, request); spoolErr != nil {
			return nil, unreachable(command, errors.Join(err, spoolErr))
		}
		return nil, nil
	case err != nil:
		return nil, unreachable(command, err)
	case reply.Error != nil:
		return nil, reply.Error
	}
	return reply.Result, nil
}

func exchange(socket string, request *Request, netns *os.File, deadline time.Time) (*Reply, error) {
	appears := deadline
	if request.Command != "ADD" {
		appears = time.Now().Add(min(dialTimeout, time.Until(deadline)))
	} else if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil { // where an agent of after a reboot will be
		return nil, fmt.Errorf("wait for the agent: %w", err)
	}
	conn, err := dial(socket, appears)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	request.Timeout = time.Until(deadline) - answerTime
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, fmt.Errorf("set deadline: %w", err)
	}
	if err := WriteRequest(conn, request, netns); err != nil {
		return nil, err
	}
	return ReadReply(conn)
}

// openNetns opens the pod's namespace. DEL has to succeed without it, and GC
// and STATUS have none.
func openNetns(path, command string) (*os.File, error) {
	if command != "ADD" && command != "CHECK" {
		return nil, nil
	}
	netns, err := os.Open(path)
	if err != nil {
		return nil, types.NewError(types.ErrInvalidNetNS, "cannot open the pod's network namespace", err.Error())
	}
	return netns, nil
}

func unreachable(command string, err error) *types.Error {
	code := types.ErrTryAgainLater
	if command == "STATUS" {
		code = types.ErrPluginNotAvailable
	}
	return types.NewError(code, "the Fairlead agent of this node does not answer",
		fmt.Sprintf("%v; see kubectl -n kube-system get pods -l app.kubernetes.io/name=fairlead-agent -o wide", err))
}
