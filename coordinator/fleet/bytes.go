package fleet

import (
	"encoding/hex"
	"errors"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"

	"manifold"
	"manifold/slugfs"
)

const digestPrefix = "sha256:"

// parseDigest accepts "sha256:" and 64 hex digits, or the digits alone, and
// returns the long form.
func parseDigest(text string) (string, error) {
	digits := strings.TrimPrefix(text, digestPrefix)
	if sum, err := hex.DecodeString(digits); err != nil || len(sum) != 32 || digits != strings.ToLower(digits) {
		return "", errors.New("a digest must be sha256: and 64 lower-case hex digits")
	}
	return digestPrefix + digits, nil
}

// serveImage sends an image, or the part of it that Range asks for. Any host
// may have any image whose digest it knows: the digest is in the assignments
// of those who need it.
func (s *Server) serveImage(w http.ResponseWriter, r *http.Request, _ string) error {
	digest, err := parseDigest(r.PathValue("digest"))
	if err != nil {
		return refuse(http.StatusNotFound, "not_found", "%v", err)
	}
	path, err := s.cfg.Images.Path(manifold.Image{Digest: digest})
	if errors.Is(err, slugfs.ErrMissing) {
		return refuse(http.StatusNotFound, "not_found", "the coordinator has no image %s", digest)
	} else if err != nil {
		return s.failed("find an image", err)
	}
	f, err := os.Open(path)
	if err != nil {
		return s.failed("open an image", err)
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("ETag", `"`+digest+`"`)
	http.ServeContent(&patientWriter{w, http.NewResponseController(w)}, r, "", time.Time{}, f)
	return nil
}

// takeLogs hands lines to the job they belong to, or to the hub. A stream's id
// gets the peer's in front, so that no peer can use up the numbers of
// another's stream.
func (s *Server) takeLogs(w http.ResponseWriter, r *http.Request, peer string) error {
	var batch manifold.LogBatch
	if err := readJSON(w, r, manifold.MaxWireBody, &batch); err != nil {
		return err
	}
	kept := batch.Streams[:0]
	for _, stream := range batch.Streams {
		j := s.jobOf(stream, peer)
		switch {
		case j == nil && uuid.Validate(stream.App) != nil, stream.ID == "", len(stream.ID) > 200:
			s.cfg.Log.Warn("dropped log lines of a stream nobody can read", "peer", peer, "lines", len(stream.Lines)) // sending them again would not mend it
		case j == nil:
			stream.ID = peer + "/" + stream.ID
			kept = append(kept, stream)
		case stream.Source == manifold.SourceApp:
			j.lines.put(stream.Lines) // what the platform says of a job is in its Result
		}
	}
	if len(kept) > 0 {
		if err := s.cfg.Logs.Append(r.Context(), kept); err != nil {
			return s.failed("keep log lines", err)
		}
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) jobOf(stream manifold.LogStream, host string) *Job {
	s.mu.Lock()
	defer s.mu.Unlock()
	if j := s.jobs[stream.Assignment]; j != nil && j.spec.Host == host {
		return j
	}
	return nil
}

// patientWriter gives up a reader that takes nothing for writeTimeout. It
// hides ReadFrom on purpose: a deadline is set for each piece.
type patientWriter struct {
	http.ResponseWriter
	out *http.ResponseController
}

func (w *patientWriter) Write(p []byte) (int, error) {
	_ = w.out.SetWriteDeadline(time.Now().Add(writeTimeout)) // where it cannot be set, the connection's pings remain
	n, err := w.ResponseWriter.Write(p)
	_ = w.out.SetWriteDeadline(time.Time{}) // HTTP/2 would end a stream that is merely quiet
	return n, err
}
