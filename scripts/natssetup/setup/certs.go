package setup

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"time"
)

const (
	day       = 24 * time.Hour
	caHolds   = 10 * 365 * day
	certHolds = 365 * day
	clockSkew = time.Hour // certificates hold from a while ago: clocks differ
)

var errPEM = errors.New("no PEM block of the kind that is needed")

// Hosts are the names that the servers of k8s/ go by in a namespace, and this machine's.
func Hosts(namespace string) []string {
	hosts := []string{"localhost", "127.0.0.1", "::1", "nats", "nats." + namespace, "nats." + namespace + ".svc", "nats." + namespace + ".svc.cluster.local"}
	for _, suffix := range []string{"", "." + namespace, "." + namespace + ".svc", "." + namespace + ".svc.cluster.local"} {
		hosts = append(hosts, "*.nats-headless"+suffix)
	}
	return hosts
}

// initCA makes the authority when there is none.
func (d Dir) initCA() error {
	if _, err := os.Stat(d.CA()); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	cert := &x509.Certificate{
		Subject: pkix.Name{CommonName: "wirepost NATS authority"}, NotBefore: time.Now().Add(-clockSkew), NotAfter: time.Now().Add(caHolds),
		IsCA: true, MaxPathLenZero: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		return err
	}
	if err := d.writeKey(key, caDir, caKeyFile); err != nil {
		return err
	}
	return d.write(pemOf("CERTIFICATE", der), caDir, CAFile)
}

// Certificate signs a new certificate of the servers, for hosts (names and addresses), or
// without any for those of the one before. All nodes share it: they show it to clients,
// and to each other in both directions.
func (d Dir) Certificate(hosts []string) error {
	if len(hosts) == 0 {
		before, err := readCertificate(d.path(serverDir, certFile))
		if err != nil {
			return fmt.Errorf("names of the certificate before: %w", err)
		}
		hosts = before.DNSNames
		for _, ip := range before.IPAddresses {
			hosts = append(hosts, ip.String())
		}
	}
	ca, caKey, err := d.authority()
	if err != nil {
		return fmt.Errorf("certificate authority: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	cert := &x509.Certificate{
		Subject: pkix.Name{CommonName: "nats"}, NotBefore: time.Now().Add(-clockSkew), NotAfter: time.Now().Add(certHolds),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			cert.IPAddresses = append(cert.IPAddresses, ip)
		} else {
			cert.DNSNames = append(cert.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, ca, key.Public(), caKey)
	if err != nil {
		return fmt.Errorf("sign the servers' certificate: %w", err)
	}
	if err := d.writeKey(key, serverDir, keyFile); err != nil {
		return err
	}
	if err := d.write(pemOf("CERTIFICATE", der), serverDir, certFile); err != nil {
		return err
	}
	return d.copyCA(serverDir)
}

func (d Dir) authority() (*x509.Certificate, *ecdsa.PrivateKey, error) {
	ca, err := readCertificate(d.CA())
	if err != nil {
		return nil, nil, err
	}
	der, err := readPEM(d.path(caDir, caKeyFile), "EC PRIVATE KEY")
	if err != nil {
		return nil, nil, err
	}
	key, err := x509.ParseECPrivateKey(der)
	return ca, key, err
}

func (d Dir) writeKey(key *ecdsa.PrivateKey, parts ...string) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return d.write(pemOf("EC PRIVATE KEY", der), parts...)
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// readCertificate reads the first certificate of a file.
func readCertificate(file string) (*x509.Certificate, error) {
	der, err := readPEM(file, "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func readPEM(file, kind string) ([]byte, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("%s: %w", file, errPEM)
	}
	return block.Bytes, nil
}
