// Renders the page once, at build time, with a package the app runs without.
const ejs = require('ejs');
const fs = require('fs');

const page = ejs.render(fs.readFileSync('page.ejs', 'utf8'), { title: 'Guest book', built: process.version });
fs.mkdirSync('public', { recursive: true });
fs.writeFileSync('public/index.html', page);
