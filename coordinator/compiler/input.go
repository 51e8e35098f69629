package compiler

import (
	"archive/tar"
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

//go:embed driver
var driver []byte

// bootstrap is the build dyno's command: it unpacks its standard input and
// becomes the driver.
const bootstrap = "mkdir /tmp/job && cd /tmp/job && { tar -x -f - || exit 16; } && exec bash driver"

// maxSourceFiles bounds the entries of a checkout; the build dyno's inodes
// would end soon after.
const maxSourceFiles = 500_000

// maxCA bounds the extra CA certificates.
const maxCA = 8 << 20

// writeInput writes the build's standard input, one tar:
//
//	driver            the script that does the build
//	ca.pem            certificates to trust besides the stack's (maybe)
//	env/KEY           config vars, one file each, as bin/compile's ENV_DIR
//	buildpacks/NN/    trees; NN in the order of packs
//	packs             one line per buildpack: "NN tree label" or "NN url label"
//	chosen            there if the app named its buildpacks (else: ask each)
//	cache.tar         what bin/compile left in CACHE_DIR last time (maybe)
//	source/           the checkout
func (b *build) writeInput(w io.Writer) error {
	tw := tar.NewWriter(w)
	parts := []func(*tar.Writer) error{b.addDriver, b.addEnv, b.addPacks, b.addCache, b.addSource}
	for _, add := range parts {
		if err := add(tw); err != nil {
			return err
		}
	}
	return tw.Close()
}

func addBytes(tw *tar.Writer, name string, mode int64, content []byte) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content)), ModTime: time.Now(), Format: tar.FormatGNU}
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	_, err := tw.Write(content)
	return err
}

func (b *build) addDriver(tw *tar.Writer) error {
	if err := addBytes(tw, "driver", 0o755, driver); err != nil || b.cfg.CA == "" {
		return err
	}
	f, err := os.Open(b.cfg.CA)
	if err != nil {
		return fmt.Errorf("read the extra CA certificates: %w", err)
	}
	defer f.Close()
	pem, err := io.ReadAll(io.LimitReader(f, maxCA+1))
	if err != nil || len(pem) > maxCA {
		return fmt.Errorf("read the extra CA certificates: over %d bytes or %w", maxCA, err)
	}
	return addBytes(tw, "ca.pem", 0o644, pem)
}

// addEnv writes the config vars. Their names were checked when they were set
// and are path elements therefore.
func (b *build) addEnv(tw *tar.Writer) error {
	for key, value := range b.config {
		if err := addBytes(tw, "env/"+key, 0o600, []byte(value)); err != nil {
			return err
		}
	}
	return nil
}

func (b *build) addPacks(tw *tar.Writer) error {
	var list bytes.Buffer
	for i, p := range b.packs {
		if p.url != "" {
			fmt.Fprintf(&list, "%02d url %s\n", i, p.label)
			continue
		}
		fmt.Fprintf(&list, "%02d tree %s\n", i, p.label)
		tree, closer, err := p.tree()
		if err != nil {
			return err
		}
		err = addTree(tw, fmt.Sprintf("buildpacks/%02d", i), tree)
		if closer != nil {
			closer.Close()
		}
		if err != nil {
			return fmt.Errorf("read buildpack %s: %w", p.label, err)
		}
	}
	if b.chosen {
		if err := addBytes(tw, "chosen", 0o644, nil); err != nil {
			return err
		}
	}
	return addBytes(tw, "packs", 0o644, list.Bytes())
}

func (b *build) addCache(tw *tar.Writer) error {
	f, size, err := b.cache.open(b.App.ID, b.stack)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the build cache: %w", err)
	}
	defer f.Close()
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "cache.tar", Mode: 0o600, Size: size, Format: tar.FormatGNU}); err != nil {
		return err
	}
	if _, err := io.CopyN(tw, f, size); err != nil {
		return fmt.Errorf("read the build cache: %w", err)
	}
	return nil
}

// addSource copies the checkout below source/. The copy is bounded here,
// where a commit that unpacks to terabytes does not yet cost anyone a disk.
func (b *build) addSource(tw *tar.Writer) error {
	pr, pw := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := b.Source(pw)
		pw.CloseWithError(err)
		ended <- err
	}()
	err := copySource(tw, pr, b.cfg.SourceLimit)
	if err == nil {
		_, err = io.Copy(io.Discard, pr) // the padding behind the last entry
	}
	pr.CloseWithError(err)
	if sourceErr := <-ended; err == nil {
		err = sourceErr
	}
	return err
}

func copySource(tw *tar.Writer, r io.Reader, limit int64) error {
	tr := tar.NewReader(r)
	var bytes int64
	for files := 1; ; files++ {
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		var r *refusal
		if errors.As(err, &r) {
			return r
		}
		if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) {
			return refuse("The source is no tar that can be read: " + clip(err.Error()))
		}
		if err != nil {
			return fmt.Errorf("read the checkout: %w", err)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue // git's note of the commit
		}
		if bytes += h.Size; bytes > limit || files > maxSourceFiles {
			return refuse(fmt.Sprintf("The checkout is too large (max is %dM and %d files).", limit>>20, maxSourceFiles),
				"Take large files out of the repository.")
		}
		if err := copyEntry(tw, tr, h); err != nil {
			return err
		}
	}
}

func copyEntry(tw *tar.Writer, tr *tar.Reader, h *tar.Header) error {
	name := strings.TrimSuffix(h.Name, "/")
	if name == "." {
		return nil
	}
	if !filepath.IsLocal(name) || strings.ContainsRune(h.Linkname, 0) {
		return refuse(fmt.Sprintf("The checkout holds the path %q, which leads out of it.", clip(h.Name)))
	}
	// GNU's form carries names of any bytes.
	out := &tar.Header{Typeflag: h.Typeflag, Name: "source/" + name, Linkname: h.Linkname, Size: h.Size,
		Mode: h.Mode & 0o777, ModTime: h.ModTime, Format: tar.FormatGNU}
	switch h.Typeflag {
	case tar.TypeDir:
		out.Name += "/"
	case tar.TypeReg, tar.TypeSymlink:
	default:
		return refuse(fmt.Sprintf("The checkout holds %q, which is no file, directory or symbolic link.", clip(h.Name)))
	}
	if err := tw.WriteHeader(out); err != nil {
		return fmt.Errorf("write the checkout: %w", err)
	}
	if _, err := io.Copy(tw, tr); err != nil {
		return fmt.Errorf("copy the checkout: %w", err)
	}
	return nil
}
