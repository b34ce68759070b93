package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sort"
	"time"
)

const (
	leafLife   = 365 * 24 * time.Hour
	caLife     = 3650 * 24 * time.Hour
	renewUnder = 120 * 24 * time.Hour
)

// leaf says what a certificate is for.
type leaf struct {
	service string // the name that `k3s certificate rotate --service` knows it by
	file    string // below the folder of certificates, without its ending
	ca      string
	name    string
	groups  []string
	server  bool
	client  bool
	hosts   []string
}

// writeAtomic makes files whole: another process may read them at any moment.
func writeAtomic(path string, content []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	temporary := path + ".new"
	if err := os.WriteFile(temporary, content, mode); err != nil {
		return err
	}
	if err := os.Chmod(temporary, mode); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}

func newKey() (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}

func readKey(path string) (any, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(content)
	if block == nil {
		return nil, fmt.Errorf("%s holds no key", path)
	}
	if key, err := x509.ParseECPrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	return x509.ParsePKCS8PrivateKey(block.Bytes)
}

func readCertificates(path string) ([]*x509.Certificate, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return parseCertificates(content)
}

func parseCertificates(content []byte) ([]*x509.Certificate, error) {
	found := []*x509.Certificate{}
	for {
		var block *pem.Block
		if block, content = pem.Decode(content); block == nil {
			break
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		found = append(found, certificate)
	}
	if len(found) == 0 {
		return nil, errors.New("no certificate in PEM")
	}
	return found, nil
}

func serialNumber() *big.Int {
	number, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	return number
}

// ensureCA makes an authority with a key of its own, unless its two files are there.
func ensureCA(path, name string) error {
	_, errKey := os.Stat(path + ".key")
	_, errCert := os.Stat(path + ".crt")
	if errKey == nil && errCert == nil {
		return nil
	}
	key, keyPEM, err := newKey()
	if err != nil {
		return err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          serialNumber(),
		Subject:               pkix.Name{CommonName: fmt.Sprintf("%s@%d", name, now.Unix())},
		NotBefore:             now.Add(-time.Minute),
		NotAfter:              now.Add(caLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	if err := writeAtomic(path+".key", keyPEM, 0o600); err != nil {
		return err
	}
	return writeAtomic(path+".crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}

// sign returns a certificate with its authority's behind it.
func sign(caPath string, wanted leaf, public any) ([]byte, error) {
	authorities, err := readCertificates(caPath + ".crt")
	if err != nil {
		return nil, err
	}
	caKey, err := readKey(caPath + ".key")
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serialNumber(),
		Subject:      pkix.Name{CommonName: wanted.name, Organization: wanted.groups},
		NotBefore:    now.Add(-time.Minute),
		NotAfter:     now.Add(leafLife),
		KeyUsage:     x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
	}
	if wanted.server {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	if wanted.client {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	}
	for _, host := range wanted.hosts {
		if address := net.ParseIP(host); address != nil {
			template.IPAddresses = append(template.IPAddresses, address)
		} else if host != "" {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, authorities[0], public, caKey)
	if err != nil {
		return nil, err
	}
	chain := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for _, authority := range authorities {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.Raw})...)
	}
	return chain, nil
}

// ensureLeaf makes a key and its certificate, or renews a certificate that ends soon or says something else.
func ensureLeaf(folder string, wanted leaf) error {
	path := filepath.Join(folder, wanted.file)
	key, err := readKey(path + ".key")
	if err != nil {
		fresh, keyPEM, err := newKey()
		if err != nil {
			return err
		}
		if err := writeAtomic(path+".key", keyPEM, 0o600); err != nil {
			return err
		}
		key = fresh
	}
	public := publicOf(key)
	caPath := filepath.Join(folder, wanted.ca)
	if certificates, err := readCertificates(path + ".crt"); err == nil && isGood(certificates[0], wanted, public, caPath) {
		return nil
	}
	chain, err := sign(caPath, wanted, public)
	if err != nil {
		return fmt.Errorf("certificate %s: %w", wanted.file, err)
	}
	return writeAtomic(path+".crt", chain, 0o644)
}

func publicOf(key any) any {
	switch typed := key.(type) {
	case *ecdsa.PrivateKey:
		return typed.Public()
	case *rsa.PrivateKey:
		return typed.Public()
	}
	return nil
}

func isGood(certificate *x509.Certificate, wanted leaf, public any, caPath string) bool {
	mine, isECDSA := public.(*ecdsa.PublicKey)
	if isECDSA && !mine.Equal(certificate.PublicKey) {
		return false
	}
	authorities, err := readCertificates(caPath + ".crt")
	if err != nil || certificate.CheckSignatureFrom(authorities[0]) != nil {
		return false
	}
	if certificate.Subject.CommonName != wanted.name || time.Until(certificate.NotAfter) < renewUnder {
		return false
	}
	has := map[string]bool{}
	for _, name := range certificate.DNSNames {
		has[name] = true
	}
	for _, address := range certificate.IPAddresses {
		has[address.String()] = true
	}
	for _, host := range wanted.hosts {
		if host != "" && !has[host] {
			return false
		}
	}
	return true
}

// caHash is the middle of a full token: the digest of the file, when the authority signed itself.
func caHash(bundle []byte) (string, error) {
	certificates, err := parseCertificates(bundle)
	if err != nil {
		return "", err
	}
	root := certificates[len(certificates)-1]
	if len(certificates) == 1 && bytes.Equal(root.RawIssuer, root.RawSubject) {
		digest := sha256.Sum256(bundle)
		return hex.EncodeToString(digest[:]), nil
	}
	digest := sha256.Sum256(root.Raw)
	return hex.EncodeToString(digest[:]), nil
}

func sortedKeys[V any](of map[string]V) []string {
	keys := make([]string, 0, len(of))
	for key := range of {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}
