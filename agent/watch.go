package agent

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// watch calls f with a channel that gets an element when something has changed
// in one of the directories since the last one was taken, and returns what f
// does. Where the kernel has no watch left (fs.inotify.max_user_instances), or
// a directory is missing, nothing is told: f has to look by itself now and then.
func watch(events uint32, dirs []string, f func(changed <-chan struct{}) error) error {
	file, err := inotify(events, dirs)
	if err != nil {
		return f(nil)
	}
	changed, ended := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(ended)
		buffer := make([]byte, 64<<10)
		for {
			if _, err := file.Read(buffer); err != nil {
				return
			}
			select {
			case changed <- struct{}{}:
			default:
			}
		}
	}()
	err = f(changed)
	_ = file.Close()
	<-ended
	return err
}

func inotify(events uint32, dirs []string) (*os.File, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch directories: %w", err)
	}
	file := os.NewFile(uintptr(fd), "inotify")
	for _, dir := range dirs {
		if _, err := unix.InotifyAddWatch(fd, dir, events); err != nil {
			_ = file.Close()
			return nil, fmt.Errorf("watch %s: %w", dir, err)
		}
	}
	return file, nil
}
