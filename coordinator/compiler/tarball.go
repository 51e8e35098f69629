package compiler

import (
	"compress/gzip"
	"fmt"
	"io"
)

// entryOverhead is what a tar may hold for an entry besides its content: the
// header, padding, and a long name.
const entryOverhead = 2 << 10

// Tarball makes a Request's Source of a gzipped tar, which open opens anew each
// time. However little it is made of, it is unpacked no further than a source
// may go.
func (c *Compiler) Tarball(open func() (io.ReadCloser, error)) func(w io.Writer) error {
	return func(w io.Writer) error {
		f, err := open()
		if err != nil {
			return fmt.Errorf("open the source: %w", err)
		}
		defer f.Close()
		unzipped, err := gzip.NewReader(f)
		if err != nil {
			return refuse("The source is no gzipped tar. Make it with: tar -czf source.tgz -C DIRECTORY .")
		}
		_, err = io.Copy(w, io.LimitReader(intact{unzipped}, c.cfg.SourceLimit+maxSourceFiles*entryOverhead))
		return err
	}
}

// intact makes a refusal of a gzip stream that cannot be read.
type intact struct{ io.Reader }

func (r intact) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil && err != io.EOF {
		err = refuse("The source is damaged: " + clip(err.Error()))
	}
	return n, err
}
