// Go's net/http with go-sql-driver/mysql: prepared statements, and nothing in between.
package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	_ "github.com/go-sql-driver/mysql"
)

const columns = "id, name, description, price, user_id, version, created_at, updated_at"

// Product is a row, and what clients get.
type Product struct {
	ID          int64     `json:"id"`
	Name        string    `json:"name"`
	Description *string   `json:"description"`
	Price       float64   `json:"price"`
	UserID      int64     `json:"user_id"`
	Version     int64     `json:"version"`
	CreatedAt   time.Time `json:"created_at"`
	UpdatedAt   time.Time `json:"updated_at"`
}

type page struct {
	Products []Product `json:"products"`
	Next     *string   `json:"next"`
}

type input struct {
	Name        *string  `json:"name"`
	Price       *float64 `json:"price"`
	Description *string  `json:"description"`
}

type server struct {
	db                              *sql.DB
	first, after, one, create, edit *sql.Stmt
	remove                          *sql.Stmt
	secret                          []byte
}

func scan(row interface{ Scan(...any) error }) (Product, error) {
	var p Product
	err := row.Scan(&p.ID, &p.Name, &p.Description, &p.Price, &p.UserID, &p.Version, &p.CreatedAt, &p.UpdatedAt)
	return p, err
}

func answer(w http.ResponseWriter, status int, value any) {
	body, err := json.Marshal(value)
	if err != nil {
		status, body = http.StatusInternalServerError, []byte("{}")
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	w.Write(body)
}

func refuse(w http.ResponseWriter, status int) {
	answer(w, status, map[string]int{"status": status})
}

func etag(p Product) string { return fmt.Sprintf(`"%d"`, p.Version) }

// The account of a token signed by HMAC with SHA-256; 0 if it is not valid.
func (s *server) caller(r *http.Request) int64 {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	parts := strings.Split(token, ".")
	if scheme != "Bearer" || len(parts) != 3 {
		return 0
	}
	mac := hmac.New(sha256.New, s.secret)
	mac.Write([]byte(parts[0] + "." + parts[1]))
	given, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || !hmac.Equal(given, mac.Sum(nil)) {
		return 0
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return 0
	}
	var claims struct {
		Sub string `json:"sub"`
		Exp int64  `json:"exp"`
	}
	if json.Unmarshal(payload, &claims) != nil || claims.Exp < time.Now().Unix() {
		return 0
	}
	id, _ := strconv.ParseInt(claims.Sub, 10, 64)
	return id
}

func (s *server) list(w http.ResponseWriter, r *http.Request) {
	limit := 100
	query := r.URL.Query()
	if text := query.Get("limit"); text != "" {
		number, err := strconv.Atoi(text)
		if err != nil || number < 1 || number > 200 {
			refuse(w, http.StatusUnprocessableEntity)
			return
		}
		limit = number
	}
	var rows *sql.Rows
	var err error
	if text := query.Get("cursor"); text == "" {
		rows, err = s.first.Query(limit + 1)
	} else {
		rows, err = s.after.Query(text, limit+1)
	}
	if err != nil {
		refuse(w, http.StatusServiceUnavailable)
		return
	}
	defer rows.Close()
	found := page{Products: make([]Product, 0, limit)}
	for rows.Next() {
		p, err := scan(rows)
		if err != nil {
			refuse(w, http.StatusInternalServerError)
			return
		}
		if len(found.Products) == limit {
			next := fmt.Sprintf("/api/products?limit=%d&cursor=%d", limit, found.Products[limit-1].ID)
			found.Next = &next
			break
		}
		found.Products = append(found.Products, p)
	}
	answer(w, http.StatusOK, found)
}

func valid(in input) bool {
	if in.Name != nil && (*in.Name == "" || utf8.RuneCountInString(*in.Name) > 512) {
		return false
	}
	return in.Price == nil || (*in.Price >= 0 && *in.Price <= 1e12)
}

func (s *server) add(w http.ResponseWriter, r *http.Request) {
	user := s.caller(r)
	if user == 0 {
		refuse(w, http.StatusUnauthorized)
		return
	}
	var in input
	if json.NewDecoder(r.Body).Decode(&in) != nil || in.Name == nil || in.Price == nil || !valid(in) {
		refuse(w, http.StatusUnprocessableEntity)
		return
	}
	now := time.Now().UTC().Truncate(time.Microsecond)
	result, err := s.create.Exec(*in.Name, in.Description, *in.Price, user, 1, now, now)
	if err != nil {
		refuse(w, http.StatusServiceUnavailable)
		return
	}
	id, _ := result.LastInsertId()
	answer(w, http.StatusCreated, Product{id, *in.Name, in.Description, *in.Price, user, 1, now, now})
}

func (s *server) change(w http.ResponseWriter, r *http.Request, id int64) {
	user := s.caller(r)
	if user == 0 {
		refuse(w, http.StatusUnauthorized)
		return
	}
	var in input
	if json.NewDecoder(r.Body).Decode(&in) != nil || !valid(in) {
		refuse(w, http.StatusUnprocessableEntity)
		return
	}
	tx, err := s.db.Begin()
	if err != nil {
		refuse(w, http.StatusServiceUnavailable)
		return
	}
	defer tx.Rollback()
	p, err := scan(tx.QueryRow("SELECT "+columns+" FROM products WHERE id = ? FOR UPDATE", id))
	switch {
	case err != nil:
		refuse(w, http.StatusNotFound)
		return
	case p.UserID != user:
		refuse(w, http.StatusForbidden)
		return
	case r.Header.Get("If-Match") != "" && r.Header.Get("If-Match") != etag(p):
		refuse(w, http.StatusPreconditionFailed)
		return
	}
	if in.Name != nil {
		p.Name = *in.Name
	}
	if in.Price != nil {
		p.Price = *in.Price
	}
	if in.Description != nil {
		p.Description = in.Description
	}
	p.Version++
	p.UpdatedAt = time.Now().UTC().Truncate(time.Microsecond)
	if _, err = tx.Stmt(s.edit).Exec(p.Name, p.Description, p.Price, p.Version, p.UpdatedAt, id); err == nil {
		err = tx.Commit()
	}
	if err != nil {
		refuse(w, http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("ETag", etag(p))
	answer(w, http.StatusOK, p)
}

func (s *server) product(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseInt(strings.TrimPrefix(r.URL.Path, "/api/products/"), 10, 64)
	if err != nil {
		refuse(w, http.StatusNotFound)
		return
	}
	switch r.Method {
	case http.MethodGet:
		p, err := scan(s.one.QueryRow(id))
		if err != nil {
			refuse(w, http.StatusNotFound)
			return
		}
		w.Header().Set("ETag", etag(p))
		answer(w, http.StatusOK, p)
	case http.MethodPatch:
		s.change(w, r, id)
	case http.MethodDelete:
		result, err := s.remove.Exec(id, s.caller(r))
		if err != nil {
			refuse(w, http.StatusServiceUnavailable)
			return
		}
		if gone, _ := result.RowsAffected(); gone == 0 {
			refuse(w, http.StatusNotFound)
			return
		}
		answer(w, http.StatusOK, map[string]int64{"id": id})
	default:
		refuse(w, http.StatusMethodNotAllowed)
	}
}

func main() {
	db, err := sql.Open("mysql", os.Getenv("GO_DATABASE"))
	if err != nil {
		log.Fatal(err)
	}
	db.SetMaxOpenConns(20)
	db.SetMaxIdleConns(20)
	prepare := func(text string) *sql.Stmt {
		statement, err := db.Prepare(text)
		if err != nil {
			log.Fatal(err)
		}
		return statement
	}
	s := &server{
		db:     db,
		first:  prepare("SELECT " + columns + " FROM products ORDER BY id DESC LIMIT ?"),
		after:  prepare("SELECT " + columns + " FROM products WHERE id < ? ORDER BY id DESC LIMIT ?"),
		one:    prepare("SELECT " + columns + " FROM products WHERE id = ?"),
		create: prepare("INSERT INTO products (name, description, price, user_id, version, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?)"),
		edit:   prepare("UPDATE products SET name = ?, description = ?, price = ?, version = ?, updated_at = ? WHERE id = ?"),
		remove: prepare("DELETE FROM products WHERE id = ? AND user_id = ?"),
		secret: []byte(os.Getenv("JWT_SECRET_KEY")),
	}
	http.HandleFunc("/api/products/", s.product)
	http.HandleFunc("/api/products", func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodGet:
			s.list(w, r)
		case http.MethodPost:
			s.add(w, r)
		default:
			refuse(w, http.StatusMethodNotAllowed)
		}
	})
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
}
