package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"manifold"
	"manifold/slugfs"
	"manifold/supervisor"
)

// maxInput bounds a job's standard input, which waits on this host's disk.
const maxInput = 8 << 30

// input fetches a job's standard input into a file that is already unlinked:
// it goes with its last reader, whatever happens to the agent. What it
// returns can only be read: a dyno must not write to this host's disk.
func (d *driver) input(ctx context.Context, run string) (*os.File, error) {
	name := d.runFile(run, "input")
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("fetch the job's input: %w", err)
	}
	defer f.Close()
	in, err := os.Open(name)
	_ = os.Remove(name) // if that fails, it goes with the run's directory
	if err == nil {
		err = d.persist(ctx, "a job's input", func() error { return d.fetchInput(ctx, f) })
	}
	if err != nil {
		in.Close()
		return nil, fmt.Errorf("fetch the job's input: %w", err)
	}
	return in, nil
}

func (d *driver) fetchInput(ctx context.Context, f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	body, err := download(ctx, d.a.up, "/fleet/v1/jobs/"+d.assignment.ID+"/input", 0)
	if err != nil {
		return err
	}
	defer body.Close()
	n, err := io.Copy(io.NewOffsetWriter(f, 0), io.LimitReader(body, maxInput+1))
	if err == nil && n > maxInput {
		return fmt.Errorf("it is over %d bytes: %w", int64(maxInput), slugfs.ErrTooLarge)
	}
	return err
}

// collect brings the outputs of a job that exited 0 home.
func (d *driver) collect(ctx context.Context, _ supervisor.Dyno, b box) message {
	event := supervisor.Event{Kind: supervisor.Collected}
	if b == nil {
		event.Detail = "the job's box is gone"
	} else if err := d.collectAll(ctx, b); err != nil {
		event.Detail = err.Error()
	}
	return message{event: event}
}

func (d *driver) collectAll(ctx context.Context, b box) error {
	return b.Scratch(func(scratch *os.File) error {
		for _, o := range d.assignment.Job.Outputs {
			if err := d.collectOne(ctx, scratch, o); err != nil {
				return fmt.Errorf("output %s: %w", o.Name, err)
			}
		}
		return nil
	})
}

func (d *driver) collectOne(ctx context.Context, scratch *os.File, o manifold.Output) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if !o.Image {
		f, err := openOutput(scratch, o.Path, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		return d.sendFile(ctx, f, o)
	}
	dir, err := openOutput(scratch, o.Path, unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer dir.Close()
	img, err := d.a.images.Pack(ctx, dir, slugfs.PackOptions{Owner: manifold.DynoUID, Limit: o.Limit})
	if errors.Is(err, slugfs.ErrTooLarge) {
		return fmt.Errorf("too large: over %d bytes", o.Limit)
	}
	if err != nil {
		return err
	}
	file, err := d.a.images.Path(img)
	if err != nil {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	return d.send(ctx, o.Name, f, img.Digest, img.Bytes)
}

// sendFile sends a regular file as it is. Nobody writes to it any more: every
// process of the job has ended.
func (d *driver) sendFile(ctx context.Context, f *os.File, o manifold.Output) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", o.Path)
	}
	if o.Limit > 0 && info.Size() > o.Limit {
		return fmt.Errorf("too large: %d bytes, the limit is %d", info.Size(), o.Limit)
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(f, 0, info.Size())); err != nil {
		return err
	}
	return d.send(ctx, o.Name, f, "sha256:"+hex.EncodeToString(sum.Sum(nil)), info.Size())
}

// send puts an output to the coordinator, however long that is away.
func (d *driver) send(ctx context.Context, name string, f *os.File, digest string, size int64) error {
	target := "/fleet/v1/jobs/" + d.assignment.ID + "/outputs/" + url.PathEscape(name)
	err := d.persist(ctx, "a job's output", func() error {
		body := io.NewSectionReader(f, 0, size)
		res, err := d.a.up.Do(ctx, http.MethodPut, target, body, http.Header{
			"X-Manifold-Digest": {digest}, "Content-Type": {"application/octet-stream"},
		})
		if err != nil {
			return err
		}
		return res.Body.Close()
	})
	if err != nil {
		return fmt.Errorf("send it: %w", err)
	}
	return nil
}

// openOutput opens a path in what a dyno wrote. Strangers made everything
// below scratch: no link is followed, nothing outside is reached, and no
// device or pipe can make the agent wait.
func openOutput(scratch *os.File, name string, flags int) (*os.File, error) {
	inside := strings.TrimPrefix(path.Clean("/"+name), "/")
	if inside == "" {
		inside = "."
	}
	fd, err := unix.Openat2(int(scratch.Fd()), inside, &unix.OpenHow{
		Flags:   uint64(unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOFOLLOW | flags),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	})
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil, fmt.Errorf("the job did not make %s", name)
	case errors.Is(err, unix.ELOOP):
		return nil, fmt.Errorf("%s is or goes through a symbolic link, which is not followed", name)
	case errors.Is(err, unix.ENOTDIR):
		return nil, fmt.Errorf("%s is not a directory, or a symbolic link, which is not followed", name)
	case err != nil:
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}
