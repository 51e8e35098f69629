package fleet

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"manifold"
	"manifold/slugfs"
)

// JobSpec is the coordinator's end of a job.
type JobSpec struct {
	Assignment string            // its id; names the directory of its outputs
	Host       string            // only this host may read and write it
	Outputs    []manifold.Output // what may be brought home
	Input      func(io.Writer) error
	Log        func(manifold.LogLine) // from one goroutine, in order
}

// JobOutput is what came home under one Output.Name.
type JobOutput struct {
	Image manifold.Image // for an Output with Image set
	Path  string         // else
}

// Job is a job whose input, log lines and outputs pass the door.
type Job struct {
	spec  JobSpec
	dir   string
	files *os.Root
	lines *lineQueue

	input   sync.Mutex // one reader at a time
	uploads sync.Mutex // one writer at a time
	mu      sync.Mutex
	outputs map[string]JobOutput
}

// OpenJob lets a job's host read its input, send its lines and put its
// outputs. It must be open before the host is told of the assignment. The
// caller calls Close.
func (s *Server) OpenJob(spec JobSpec) (*Job, error) {
	fail := func(err error) (*Job, error) { return nil, fmt.Errorf("open job %s: %w", spec.Assignment, err) }
	for _, out := range spec.Outputs {
		if !filepath.IsLocal(out.Name) || filepath.Base(out.Name) != out.Name || strings.HasSuffix(out.Name, partial) {
			return fail(fmt.Errorf("%q is not a file name", out.Name))
		}
		if out.Limit <= 0 {
			return fail(fmt.Errorf("output %s has no limit", out.Name))
		}
	}
	if err := s.jobsRoot.Mkdir(spec.Assignment, 0o700); err != nil {
		return fail(err)
	}
	files, err := s.jobsRoot.OpenRoot(spec.Assignment)
	if err != nil {
		return fail(err)
	}
	j := &Job{
		spec: spec, dir: filepath.Join(s.cfg.JobsDir, spec.Assignment), files: files,
		lines: newLineQueue(spec.Log), outputs: map[string]JobOutput{},
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.jobs[spec.Assignment] = j
	return j, nil
}

// CloseJob shuts the door for a job, waits until every line that arrived was
// given to Log, and returns what came home and the directory it lies in. The
// directory is the caller's from now on.
func (s *Server) CloseJob(j *Job) (outputs map[string]JobOutput, dir string) {
	s.mu.Lock()
	delete(s.jobs, j.spec.Assignment)
	s.mu.Unlock()
	j.uploads.Lock() // an upload under way ends first
	defer j.uploads.Unlock()
	j.lines.close()
	_ = j.files.Close() // a directory descriptor
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.outputs, j.dir
}

// WaitLines returns when the job's line number seq has arrived.
func (j *Job) WaitLines(ctx context.Context, seq uint64) error { return j.lines.wait(ctx, seq) }

// job finds an open job of a host. A job of another host is not found: nobody
// learns from the answer what others run.
func (s *Server) job(r *http.Request, host string) (*Job, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if j := s.jobs[r.PathValue("assignment")]; j != nil && j.spec.Host == host {
		return j, nil
	}
	return nil, refuse(http.StatusNotFound, "not_found", "this host has no such job")
}

func (s *Server) serveInput(w http.ResponseWriter, r *http.Request, host string) error {
	j, err := s.job(r, host)
	if err != nil {
		return err
	}
	if !j.input.TryLock() {
		return refuse(http.StatusServiceUnavailable, "busy", "the input is being read already: try again when that has ended")
	}
	defer j.input.Unlock()
	w.Header().Set("Content-Type", "application/octet-stream")
	if j.spec.Input == nil {
		return nil
	}
	if err := j.spec.Input(&patientWriter{w, http.NewResponseController(w)}); err != nil {
		s.cfg.Log.Warn("a job's input broke off", "job", j.spec.Assignment, "err", err)
		panic(http.ErrAbortHandler) // the reader must not take half an input for a whole one
	}
	return nil
}

// digestHeader says the SHA-256 of an output's bytes.
const digestHeader = "X-Manifold-Digest"

// partial marks a file whose upload has not ended.
const partial = ".part"

func (s *Server) takeOutput(w http.ResponseWriter, r *http.Request, host string) error {
	j, err := s.job(r, host)
	if err != nil {
		return err
	}
	out, ok := j.output(r.PathValue("name"))
	if !ok {
		return refuse(http.StatusNotFound, "not_found", "this job has no such output")
	}
	digest, err := parseDigest(r.Header.Get(digestHeader))
	if err != nil {
		return refuse(http.StatusBadRequest, "bad_request", "%s: %v", digestHeader, err)
	}
	j.uploads.Lock()
	defer j.uploads.Unlock()
	if _, err := s.job(r, host); err != nil {
		return err // closed while we waited
	}
	var got JobOutput
	if out.Image {
		got.Image, err = s.cfg.Images.Add(r.Context(), r.Body, digest, out.Limit)
	} else {
		got.Path, err = j.save(out, r.Body, digest)
	}
	switch {
	case errors.Is(err, slugfs.ErrDigest):
		return refuse(http.StatusUnprocessableEntity, "digest_mismatch", "the bytes of output %s are not those of %s", out.Name, digest)
	case errors.Is(err, slugfs.ErrTooLarge):
		return refuse(http.StatusRequestEntityTooLarge, "too_large", "output %s is over its limit of %d bytes", out.Name, out.Limit)
	case err != nil:
		return s.failed("keep a job's output", err)
	}
	j.mu.Lock()
	j.outputs[out.Name] = got
	j.mu.Unlock()
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (j *Job) output(name string) (manifold.Output, bool) {
	for _, out := range j.spec.Outputs {
		if out.Name == name {
			return out, true
		}
	}
	return manifold.Output{}, false
}

// save writes a file output, whole or not at all.
func (j *Job) save(out manifold.Output, body io.Reader, digest string) (path string, err error) {
	part := out.Name + partial
	f, err := j.files.OpenFile(part, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), j.files.Remove(part))
		}
	}()
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, sum), io.LimitReader(body, out.Limit+1))
	switch {
	case err != nil:
		return "", err
	case n > out.Limit:
		return "", slugfs.ErrTooLarge
	case digestPrefix+hex.EncodeToString(sum.Sum(nil)) != digest:
		return "", slugfs.ErrDigest
	}
	if err := errors.Join(f.Close(), j.files.Rename(part, out.Name)); err != nil {
		return "", err
	}
	return filepath.Join(j.dir, out.Name), nil
}
