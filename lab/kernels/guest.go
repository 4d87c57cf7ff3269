package kernels

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

// How a guest ends that does not switch itself off.
var (
	ErrCrashed = errors.New("the guest crashed")
	ErrHung    = errors.New("the guest hung")
)

// Guest is one run of a kernel in QEMU. Its files are those of this machine;
// what it writes is gone afterwards, except in its share. Debian's modules load
// on demand. It has cgroup v2, no network device, and one processor: an emulator
// gives each what one of this machine's does, and several guests at a time are as
// fast as one, while several processors of one guest wait for each other's locks.
type Guest struct {
	Image Image
	// Share is a directory that the guest shares, by the same path. It gets
	// the kernel's console in the file console.log.
	Share string
	// Script is run by the guest's shell, with this process's PATH and HOME
	// and the places of Go's caches. Lines that it writes to descriptor 3 are
	// reported; the last one must be "done". What it says otherwise goes to
	// the console.
	Script string
	Memory int // MiB
}

// Run boots the guest and returns when it is off. An end of ctx switches it off
// at once. report gets the lines of the script, one at a time.
func (g Guest) Run(ctx context.Context, report func(line string)) error {
	if err := g.prepare(); err != nil {
		return fmt.Errorf("prepare a guest: %w", err)
	}
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64",
		// Without what each access to memory or entry of the kernel pays for, and
		// protects a machine of users.
		"-accel", "tcg,thread=multi", "-cpu", "max,-la57,-smap,-smep,-umip,-pku", "-smp", "1", "-m", fmt.Sprint(g.Memory),
		"-nodefaults", "-display", "none", "-nic", "none", "-no-reboot",
		"-serial", "file:"+g.console(), "-serial", "stdio",
		"-kernel", filepath.Join(g.Image.Dir, "boot/vmlinuz-"+g.Image.Release), "-initrd", g.initrd(),
		"-append", "console=ttyS0 loglevel=5 panic=-1 oops=panic mitigations=off tsc=reliable",
		"-virtfs", "local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap",
		"-virtfs", "local,path="+g.Share+",mount_tag=share,security_model=none,multidevs=remap")
	// It dies with this process, which the kernel takes for the thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	lines, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("run a guest: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("run a guest: %w", err)
	}
	last := ""
	for scanner := bufio.NewScanner(lines); scanner.Scan(); {
		last = strings.TrimSpace(scanner.Text())
		report(last)
	}
	err = cmd.Wait()
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w; its console:\n%s", ErrHung, context.Cause(ctx), g.lastWords())
	}
	if err == nil && last != "done" {
		err = errors.New("it ended before its script")
	}
	if err != nil {
		return fmt.Errorf("%w: %w: %s; its console:\n%s", ErrCrashed, err, strings.TrimSpace(stderr.String()), g.lastWords())
	}
	return nil
}

func (g Guest) console() string { return filepath.Join(g.Share, "console.log") }
func (g Guest) initrd() string  { return filepath.Join(g.Share, "initrd") }

// prepare writes what the guest boots from into its share.
func (g Guest) prepare() error {
	environment := fmt.Sprintf("RELEASE=%s MODULES=%s SHARE=%s\n", quote(g.Image.Release),
		quote(filepath.Join(g.Image.Dir, "lib/modules", g.Image.Release)), quote(g.Share))
	archive, err := g.Image.initramfs(environment)
	if err != nil {
		return err
	}
	// Tests may change settings of the whole machine: it is their own.
	script := "exec 3>/dev/ttyS1 </dev/null\nexport FAIRLEAD_LAB_GUEST=1\n"
	for _, name := range []string{"PATH", "HOME", "GOPATH", "GOCACHE", "GOMODCACHE"} {
		if value, ok := os.LookupEnv(name); ok {
			script += "export " + name + "=" + quote(value) + "\n"
		}
	}
	// The first process has to stay until the machine is off.
	script += "(\n" + g.Script + "\n)\nbusybox poweroff -f\n"
	return errors.Join(os.WriteFile(g.initrd(), archive, 0o644),
		os.WriteFile(filepath.Join(g.Share, "run.sh"), []byte(script), 0o644))
}

// lastWords are the last lines of the guest's console.
func (g Guest) lastWords() string {
	console, err := os.ReadFile(g.console())
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(strings.ReplaceAll(string(console), "\r", "")), "\n")
	return strings.Join(lines[max(0, len(lines)-60):], "\n")
}

// quote is of one word for the shell.
func quote(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }
